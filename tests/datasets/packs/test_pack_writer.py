import os

import h5py
import numpy as np
import pytest
from PIL import Image

from datasets import DatasetError, ImageFolder, ImagePack, Quarantined, write_pack
from datasets.errors import TooManyUnreadableError

pytestmark = pytest.mark.usefixtures("trusted_packs")


@pytest.fixture
def classes_folder(tmp_path, save_image):
    """Twelve 6x7 pictures of noise in the folders ant, bee and cat."""
    rng = np.random.default_rng(0)
    for i in range(12):
        name = ("ant", "bee", "cat")[i % 3]
        save_image(tmp_path / "imgs" / name / f"{i:02}.png", rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
    return tmp_path / "imgs"


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "imgs")


@pytest.mark.parametrize("block", [0, 512])  # statistics of ours begin with a block that says what they are
def test_hdf5_that_is_no_pack_is_not_replaced(tmp_path, classes_folder, block):
    folder = ImageFolder(classes_folder)
    with h5py.File(tmp_path / "mine.h5", "w", userblock_size=block) as file:
        file["measured"] = np.arange(5)
    before = (tmp_path / "mine.h5").read_bytes()
    with pytest.raises(DatasetError, match=r"mine\.h5: already exists and is no image pack, so it is not replaced"):
        write_pack(folder, tmp_path / "mine.h5")
    assert (tmp_path / "mine.h5").read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_replaced(tmp_path, classes_folder):
    os.mkfifo(tmp_path / "p.h5")
    with pytest.raises(DatasetError, match=r"p\.h5: already exists and is no regular file; give another name"):
        write_pack(ImageFolder(classes_folder), tmp_path / "p.h5")
    assert (tmp_path / "p.h5").is_fifo()


def test_a_pack_equals_its_folder(tmp_path, classes_folder):
    folder = ImageFolder(classes_folder)
    steps = []
    assert write_pack(folder, tmp_path / "p.h5", progress=lambda done, total: steps.append((done, total))) == []
    with ImagePack(tmp_path / "p.h5") as pack:
        assert pack.names == folder.names
        assert pack.class_names == folder.class_names == ("ant", "bee", "cat")
        assert np.array_equal(pack.labels, folder.labels)
        for i in range(12):
            assert np.array_equal(pack.read(i), folder.read(i))
    assert steps[-1] == (12, 12)
    assert leftovers(tmp_path) == ["p.h5"]


def test_an_unlabelled_folder_gives_an_unlabelled_pack(tmp_path, numbered_folder):
    write_pack(ImageFolder(numbered_folder(3)), tmp_path / "p.h5")
    pack = ImagePack(tmp_path / "p.h5")
    assert pack.labels is None
    assert pack.class_names is None


def test_names_that_are_no_unicode_survive(tmp_path, numbered_folder):
    folder = numbered_folder(1)
    (folder / "000.png").rename(folder / os.fsdecode(b"\xff.png"))
    source = ImageFolder(folder)
    write_pack(source, tmp_path / "p.h5")
    assert ImagePack(tmp_path / "p.h5").names == source.names == ("\udcff.png",)


def test_rows_lie_in_chunks_of_about_a_megabyte(tmp_path, save_image):
    for i in range(12):
        save_image(tmp_path / "imgs" / f"{i:02}.bmp", (i, i, i), (200, 250))  # 150,000 bytes: 6 rows in 2**20
    write_pack(ImageFolder(tmp_path / "imgs"), tmp_path / "p.h5")
    with h5py.File(tmp_path / "p.h5") as file:
        assert file["images"].chunks == (6, 200, 250, 3)
        assert file["images"][:, 0, 0, 0].tolist() == list(range(12))


def test_size_scales_the_shorter_side_and_crops_the_centre(tmp_path, save_image):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    save_image(tmp_path / "imgs/a.png", pixels)
    save_image(tmp_path / "imgs/b.png", pixels[:20, :20])
    write_pack(ImageFolder(tmp_path / "imgs"), tmp_path / "p.h5", size=(20, 20))
    pack = ImagePack(tmp_path / "p.h5")
    scaled = Image.fromarray(pixels).resize((30, 20), Image.Resampling.BILINEAR)
    assert np.array_equal(pack.read(0), np.asarray(scaled)[:, 5:25])
    assert np.array_equal(pack.read(1), pixels[:20, :20])


def test_different_sizes_without_size_name_the_first_that_differs(tmp_path, numbered_folder, save_image):
    folder = numbered_folder(5)
    save_image(folder / "002.png", size=(8, 9))
    with pytest.raises(
        DatasetError, match=r"002\.png: 8 x 9 pixels .* but 000\.png has 4 x 4; give one size to resize"
    ):
        write_pack(ImageFolder(folder), tmp_path / "p.h5")
    assert leftovers(tmp_path) == []


def test_unreadable_images_are_left_out_and_returned(tmp_path, numbered_folder):
    folder = ImageFolder(numbered_folder(10, bad=(0, 6)))
    bad = write_pack(folder, tmp_path / "p.h5", max_bad=0.2)
    reason = "not an image: the file begins with b'this is no image', which no PNG file does"
    assert bad == [Quarantined("000.png", reason), Quarantined("006.png", reason)]
    pack = ImagePack(tmp_path / "p.h5")
    assert pack.names == tuple(f"{i:03}.png" for i in (1, 2, 3, 4, 5, 7, 8, 9))
    assert [int(pack.read(i)[0, 0, 0]) for i in range(8)] == [1, 2, 3, 4, 5, 7, 8, 9]


@pytest.mark.parametrize("bad", [(0, 6), range(10)])
def test_too_many_unreadable_images_leave_no_file(tmp_path, numbered_folder, bad):
    with pytest.raises(TooManyUnreadableError):
        write_pack(ImageFolder(numbered_folder(10, bad=bad)), tmp_path / "p.h5")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_failure_midway_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path, numbered_folder, decoding_threads, error
):
    (tmp_path / "p.h5").write_bytes(b"the old pack")

    def fail(done, total):
        raise error

    with pytest.raises(error):
        write_pack(ImageFolder(numbered_folder(10)), tmp_path / "p.h5", progress=fail)
    assert (tmp_path / "p.h5").read_bytes() == b"the old pack"
    assert leftovers(tmp_path) == ["p.h5"]
    assert decoding_threads() == 0


def test_an_existing_file_is_replaced(tmp_path, numbered_folder):
    (tmp_path / "p.h5").write_bytes(b"the old pack")
    for count in (2, 3):
        write_pack(ImageFolder(numbered_folder(count)), tmp_path / "p.h5")
        assert len(ImagePack(tmp_path / "p.h5")) == count


def test_wrong_destinations(tmp_path, numbered_folder):
    source = ImageFolder(numbered_folder(2))
    with pytest.raises(DatasetError, match=r"p\.zip: expected a file name ending in \.h5 or \.hdf5"):
        write_pack(source, tmp_path / "p.zip")
    with pytest.raises(DatasetError, match=r"p\.h5: cannot be written: "):
        write_pack(source, tmp_path / "none" / "p.h5")
    (tmp_path / "d.h5").mkdir()
    with pytest.raises(DatasetError, match=r"d\.h5: cannot be written: "):
        write_pack(source, tmp_path / "d.h5")
    assert leftovers(tmp_path) == ["d.h5"]
