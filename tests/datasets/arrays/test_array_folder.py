"""Folders of .npy and .npz files: a model's inputs where they fit them, images otherwise."""

import numpy as np
import pytest

from datasets import BatchStream, DatasetError, Preprocessing, identify, open_source
from datasets.arrays.array_folder import ArrayImages, ArrayInputs
from datasets.arrays.npy_files import read_array, stored_arrays
from datasets.errors import TooManyUnreadableError
from datasets.source import ImageSource, TensorSource
from quant.onnx_graph.model import TensorInfo

RNG = np.random.default_rng(0)
FORMS = (TensorInfo("input", ("N", 3, 8, 6), "float32"),)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, **options)
    return array


def batches(source, **options):
    return list(BatchStream(source, **options))


def test_arrays_of_the_inputs_form_are_the_inputs(tmp_path):
    one = save(tmp_path / "a.npy", RNG.normal(size=(3, 8, 6)).astype(np.float32))
    batch_of_one = save(tmp_path / "b.npy", RNG.normal(size=(1, 3, 8, 6)).astype(np.float32))
    several = save(tmp_path / "c.npy", RNG.normal(size=(2, 3, 8, 6)).astype(np.float64))
    source = open_source(tmp_path, forms=FORMS)
    assert isinstance(source, ArrayInputs)
    assert isinstance(source, TensorSource)
    assert not isinstance(source, ImageSource)
    assert source.names == ("a.npy", "b.npy", "c.npy#0", "c.npy#1")
    (batch,) = batches(source)
    expected = np.stack([one, batch_of_one[0], *several]).astype(np.float32)
    assert np.array_equal(batch.inputs["input"], expected)
    assert batch.inputs["input"].dtype == np.float32
    assert source.notes[-1] == f"{tmp_path}: the arrays are the model's inputs, 'input' [N, 3, 8, 6] float32"


def test_a_file_alone_and_fortran_order(tmp_path):
    array = save(tmp_path / "calib.npy", np.asfortranarray(RNG.normal(size=(4, 3, 8, 6)).astype(np.float32)))
    source = open_source(tmp_path / "calib.npy", forms=FORMS)
    assert len(source) == 4
    assert np.array_equal(batches(source)[0].inputs["input"], array)
    assert identify(source, [0]).sha256 != identify(source, [1]).sha256
    assert source.fingerprint(0) != source.fingerprint(1)


def test_folders_are_classes_of_arrays_too(tmp_path):
    for name in ("cat/1.npy", "dog/1.npy", "dog/2.npy"):
        save(tmp_path / name, np.zeros((3, 8, 6), np.float32))
    source = open_source(tmp_path, forms=FORMS)
    assert (source.class_names, source.labels.tolist()) == (("cat", "dog"), [0, 1, 1])
    assert open_source(tmp_path, forms=FORMS, task="none").labels is None
    (tmp_path / "l.csv").write_text("1,5\n2,6\n")
    assert open_source(tmp_path / "dog", forms=FORMS, labels=tmp_path / "l.csv").labels.tolist() == [5, 6]


def test_bytes_are_images_that_are_preprocessed(tmp_path):
    hwc = save(tmp_path / "a.npy", RNG.integers(0, 256, (8, 6, 3)).astype(np.uint8))
    chw = save(tmp_path / "b.npy", RNG.integers(0, 256, (3, 8, 6)).astype(np.uint8))
    grey = save(tmp_path / "c.npy", RNG.integers(0, 256, (8, 6)).astype(np.uint8))
    source = open_source(tmp_path, forms=FORMS)
    assert isinstance(source, ArrayImages)
    (batch,) = batches(source, preprocessing=Preprocessing.preset("unit").bound_to(FORMS[0].shape, "float32"))
    expected = [hwc.transpose(2, 0, 1), chw, np.broadcast_to(grey, (3, 8, 6))]
    np.testing.assert_allclose(batch.inputs["input"], np.stack(expected) / np.float32(255), rtol=1e-6)
    assert np.array_equal(source.read(0), hwc)
    assert source.read(2).shape == (8, 6, 3)


def test_a_stack_of_images_in_one_file(tmp_path):
    stack = save(tmp_path / "x.npy", RNG.integers(0, 256, (5, 8, 6, 3)).astype(np.uint8))
    source = open_source(tmp_path / "x.npy", forms=FORMS)
    assert source.names[4] == "x.npy#4"
    assert np.array_equal(source.read(3), stack[3])


def test_16_bits_and_numbers_with_a_stated_range(tmp_path):
    save(tmp_path / "a.npy", np.full((8, 6), 4095, np.uint16))
    save(tmp_path / "b.npy", np.full((8, 6), -1000.0, np.float32))
    source = open_source(tmp_path, forms=FORMS)
    assert source.lacks_range(0)
    plain = Preprocessing.preset("unit").bound_to(FORMS[0].shape, "float32")
    stream = BatchStream(source, preprocessing=plain, max_bad=1)
    (batch,) = stream
    np.testing.assert_allclose(batch.inputs["input"][0], 4095 / 65535, rtol=1e-6)
    assert "numbers of float32 have no defined range; state" in stream.quarantined[0].reason
    ranged = Preprocessing(resize="stretch", pixel_range=(-1000, 4095)).bound_to(FORMS[0].shape, "float32")
    (batch,) = batches(source, preprocessing=ranged)
    assert batch.inputs["input"][:, 0, 0, 0].tolist() == [1, 0]


def test_npz_files_hold_several_inputs_by_name(tmp_path):
    forms = (TensorInfo("image", (None, 1, 2, 2), "float32"), TensorInfo("ids", (None, 3), "int64"))
    for i in range(3):
        np.savez_compressed(tmp_path / f"{i}.npz", image=np.full((1, 2, 2), i, np.float32), ids=[i, i, i])
    source = open_source(tmp_path, forms=forms)
    assert source.inputs == ("image", "ids")
    (batch,) = batches(source)
    assert batch.inputs["image"][:, 0, 0, 0].tolist() == [0, 1, 2]
    assert batch.inputs["ids"].tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    np.savez(tmp_path / "all.npz", image=np.zeros((4, 1, 2, 2), np.float32), ids=np.zeros((4, 3), np.int32))
    assert len(open_source(tmp_path / "all.npz", forms=forms)) == 4
    np.savez(tmp_path / "all.npz", image=np.zeros((4, 1, 2, 2), np.float32), ids=np.zeros((3, 3), np.int32))
    with pytest.raises(DatasetError, match=r"all\.npz: all inputs need the same number of rows, found \[3, 4\]"):
        open_source(tmp_path / "all.npz", forms=forms)


def test_what_is_neither_says_what_was_expected(tmp_path):
    save(tmp_path / "a.npy", np.zeros((7, 7, 7, 7, 7), np.float32))
    with pytest.raises(DatasetError) as caught:
        open_source(tmp_path, forms=FORMS)
    assert str(caught.value) == (
        f"{tmp_path}/a.npy: expected 'input' [N, 3, 8, 6] float32, or images [H, W, C], found an array "
        "[7, 7, 7, 7, 7] float32"
    )
    save(tmp_path / "a.npy", np.zeros((3, 8, 6), np.float32))
    save(tmp_path / "b.npy", np.zeros((3, 9, 6), np.float32))
    with pytest.raises(DatasetError, match=r"b\.npy: expected 'input' .* as the other files have, found \[3, 9, 6\]"):
        open_source(tmp_path, forms=FORMS)


def test_objects_are_never_unpickled_and_damage_is_told(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(
        DatasetError, match=r"a\.npy: cannot be read as an array of NumPy's: it holds object, not numbers"
    ):
        open_source(tmp_path, forms=FORMS)
    save(path, np.zeros((3, 8, 6), np.float32))
    whole = path.read_bytes()
    for data in (b"", b"no array", whole[:-1], whole[:40], whole.replace(b"(3, 8, 6)", b"(3, 8,9**9)")):
        path.write_bytes(data)
        with pytest.raises(DatasetError, match=r"a\.npy: cannot be read"):
            open_source(tmp_path, forms=FORMS)
    path.write_bytes(whole.replace(b"(3, 8, 6), }", b"(9, 10**9,)}"[:12]))
    with pytest.raises(DatasetError, match=r"a\.npy: cannot be read"):
        stored_arrays(path)
    broken = tmp_path / "b.npz"
    np.savez_compressed(broken, x=np.zeros(1000))
    data = bytearray(broken.read_bytes())
    data[60:90] = bytes(30)
    broken.write_bytes(data)
    with pytest.raises(DatasetError, match=r"b\.npz: cannot be read"):
        read_array(broken, "x")


def test_a_file_that_breaks_later_is_set_aside_or_ends_in_a_line(tmp_path):
    for i in range(2):
        save(tmp_path / f"{i}.npy", np.zeros((8, 6, 3), np.uint8))
    source = open_source(tmp_path, forms=FORMS)
    (tmp_path / "1.npy").write_bytes(b"")
    unit = Preprocessing.preset("unit").bound_to(FORMS[0].shape, "float32")
    stream = BatchStream(source, preprocessing=unit, max_bad=1)
    assert [batch.size for batch in stream] == [1]
    assert stream.quarantined[0].file == "1.npy"
    with pytest.raises(TooManyUnreadableError):
        list(BatchStream(source, preprocessing=unit))


def test_pipes_are_not_opened(tmp_path, no_file):
    no_file(tmp_path / "a.npy", "pipe")
    (tmp_path / "b.npy").symlink_to(tmp_path / "a.npy")
    with pytest.raises(DatasetError, match=r"no images in it|cannot be read: expected a file, found a pipe"):
        open_source(tmp_path, forms=FORMS)


def test_arrays_beside_images_are_counted_and_not_read(tmp_path, save_image):
    save_image(tmp_path / "a.png")
    save(tmp_path / "b.npy", np.zeros((3, 8, 6), np.float32))
    assert open_source(tmp_path, forms=FORMS).notes == (f"{tmp_path}: 1 images; not read: 1 .npy",)
