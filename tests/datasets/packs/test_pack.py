from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from datasets import DatasetError, ImagePack, TensorPack, identify, open_source
from datasets.errors import UnreadableImageError

pytestmark = pytest.mark.usefixtures("trusted_packs")


def images(count=4, height=3, width=5):
    return np.arange(count * height * width * 3).reshape(count, height, width, 3).astype(np.uint8)


def test_image_pack_gives_rows_labels_names_and_classes(write_h5):
    path = write_h5(images=images(), labels=[1, 0, 1, 1], names=["a", "é/b", "c", "d"], class_names=["cat", "dog"])
    with ImagePack(path) as pack:
        assert len(pack) == 4
        assert pack.names == ("a", "é/b", "c", "d")
        assert pack.labels.tolist() == [1, 0, 1, 1]
        assert pack.labels.dtype == np.int64
        assert pack.class_names == ("cat", "dog")
        for i in range(4):
            assert np.array_equal(pack.read(i), images()[i])
            assert pack.content(i) == images()[i].tobytes()


def test_labels_and_names_are_optional_and_classes_may_be_an_attribute(write_h5):
    pack = ImagePack(write_h5(images=images(2), attributes={"class_names": ["cat", "dog"]}))
    assert pack.names == ("#0", "#1")
    assert pack.labels is None
    assert pack.class_names == ("cat", "dog")


def test_rows_are_read_from_several_threads(write_h5):
    pixels = images(300)
    pack = ImagePack(write_h5(images=pixels))
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda i: np.array_equal(pack.read(i), pixels[i]), list(range(300)) * 3))


def test_fingerprint_tells_file_and_row(write_h5):
    first = ImagePack(write_h5(images=images()))
    before = first.fingerprint(0)
    assert before == first.fingerprint(0) != first.fingerprint(1)
    first.close()
    pack = ImagePack(write_h5(images=images() + 1))
    assert pack.fingerprint(0) != before
    assert identify(pack, [0, 1], identify(pack, [0, 1]).entries).hashed == 0


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"pixels": images()}, r"pack\.h5: no dataset 'images'; the file holds 'pixels' uint8 \[4, 3, 5, 3\]"),
        ({}, r"pack\.h5: no dataset 'images'; the file holds no datasets"),
        (
            {"images": images().astype(np.float32)},
            r"'images' must be uint8 \[N, H, W, 3\], found float32 \[4, 3, 5, 3\]",
        ),
        ({"images": images()[..., :2]}, r"'images' must be uint8 \[N, H, W, 3\], found uint8 \[4, 3, 5, 2\]"),
        ({"images": images()[0]}, r"'images' must be uint8 \[N, H, W, 3\], found uint8 \[3, 5, 3\]"),
        ({"images": images()[:0]}, "holds no samples; expected at least one row"),
        ({"images": images(), "labels": [0, 1]}, r"'labels' must hold class indices, int64 \[4\]; found int64 \[2\]"),
        ({"images": images(), "labels": [0.0] * 4}, r"'labels' must hold class indices, int64 \[4\]; found float64"),
        ({"images": images(), "labels": [0, 0, -1, 0]}, "'labels' holds -1 at row 2, which is not a class index"),
        (
            {"images": images(), "labels": [0, 1, 2, 0], "class_names": ["a", "b"]},
            "'labels' holds 2 at row 2, which is not a class index",
        ),
        ({"images": images(), "names": ["a", "b"]}, "'names' has 2 rows, the samples have 4"),
        ({"images": images(), "names": ["a", "b", "c", "a"]}, "'names' holds a name twice"),
        ({"images": images(), "names": [1, 2, 3, 4]}, "'names' must hold text; found 1"),
    ],
)
def test_wrong_image_packs(write_h5, datasets, message):
    with pytest.raises(DatasetError, match=message):
        ImagePack(write_h5(**datasets))


def test_missing_foreign_and_damaged_files(tmp_path, write_h5):
    with pytest.raises(DatasetError, match=r"none\.h5: no such file; expected an HDF5 pack"):
        ImagePack(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DatasetError, match=r"text\.h5: not an HDF5 file; `calib pack` writes one"):
        ImagePack(tmp_path / "text.h5")
    path = write_h5(images=images(200))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DatasetError, match=r"pack\.h5: damaged HDF5 file: ") as caught:
        ImagePack(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_row_is_an_unreadable_image(tmp_path):
    path = tmp_path / "pack.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images(2), chunks=(1, 3, 5, 3), fletcher32=True)
    data = bytearray(path.read_bytes())
    row = images(2)[1].tobytes()
    data[data.index(row)] ^= 0xFF
    path.write_bytes(data)
    pack = ImagePack(path)
    assert np.array_equal(pack.read(0), images(2)[0])
    with pytest.raises(UnreadableImageError, match="#1: damaged HDF5 data: "):
        pack.read(1)


def test_tensor_pack_gives_one_array_an_input(tensor_pack):
    with TensorPack(tensor_pack(5), ["image", "ids"]) as pack:
        sample = pack.load(3)
        assert list(sample) == ["image", "ids"]
        assert sample["ids"].tolist() == [6, 7]
        assert sample["image"].dtype == np.float32
        assert sample["image"].tolist() == [[[3, 3], [3, 3]]]
        assert len(pack) == 5
        assert pack.labels.tolist() == [0, 1, 2, 0, 1]
        assert pack.content(3) == np.full(4, 3, np.float32).tobytes() + np.array([6, 7]).tobytes()


@pytest.mark.parametrize(
    ("datasets", "inputs", "message"),
    [
        ({"a": [1.0, 2.0]}, ["a", "b", "c"], r"pack\.h5: no dataset for 'b', 'c'; the file holds 'a' float64 \[2\]"),
        ({"a": [1.0]}, [], "no dataset for the model's inputs; the file holds 'a'"),
        ({"a": [1, 2], "b": [1, 2, 3]}, ["a", "b"], "all inputs need the same number of rows; found 'a' 2, 'b' 3"),
        ({"a": ["x", "y"]}, ["a"], r"'a' must hold numbers, \[N, ...\]; found object \[2\]"),
        ({"a": 3.0}, ["a"], r"'a' must hold numbers, \[N, ...\]; found float64 \[\]"),
    ],
)
def test_wrong_tensor_packs(write_h5, datasets, inputs, message):
    with pytest.raises(DatasetError, match=message):
        TensorPack(write_h5(**datasets), inputs)


def test_classes_put_a_pack_s_labels_in_another_order_by_name(write_h5, tmp_path):
    path = write_h5(images=images(), labels=[1, 0, 1, 1], class_names=["cat", "dog"])
    pack = open_source(path, classes=("ant", "dog", "cat"))
    assert pack.class_names == ("ant", "dog", "cat")
    assert pack.labels.tolist() == [1, 2, 1, 1]
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    assert open_source(path, classes=tmp_path / "classes.txt").labels.tolist() == [0, 1, 0, 0]


def test_classes_name_the_labels_of_a_pack_that_holds_no_names(write_h5, tensor_pack):
    pack = open_source(write_h5("images.h5", images=images(), labels=[1, 0, 2, 2]), classes=("cat", "dog", "ant"))
    assert (pack.class_names, pack.labels.tolist()) == (("cat", "dog", "ant"), [1, 0, 2, 2])
    tensors = open_source(tensor_pack(3), inputs=["ids"], classes=("a", "b", "c"))
    assert (tensors.class_names, tensors.labels.tolist()) == (("a", "b", "c"), [0, 1, 2])


def test_a_pack_without_labels_takes_any_classes(write_h5):
    assert open_source(write_h5(images=images()), classes=("cat",)).labels is None


def test_labels_that_are_not_among_the_classes_are_refused(write_h5):
    named = write_h5("named.h5", images=images(), labels=[1, 0, 1, 1], class_names=["cat", "dog", "never used"])
    assert open_source(named, classes=("dog", "cat")).labels.tolist() == [0, 1, 0, 0]
    with pytest.raises(DatasetError, match=r"named\.h5: class 'cat' is not one of the 2 classes given"):
        open_source(named, classes=("dog", "wolf"))
    with pytest.raises(DatasetError, match=r"plain\.h5: label 3 is not one of the 3 classes given"):
        open_source(write_h5("plain.h5", images=images(), labels=[0, 3, 1, 1]), classes=("a", "b", "c"))
