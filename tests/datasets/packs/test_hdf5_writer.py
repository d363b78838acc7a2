import gc
import os
import resource
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest

from datasets import DatasetError, ImageFolder, ImagePack, write_pack
from datasets.packs.hdf5_writer import Hdf5Writer, PatientFile

PAGE = 4096
PACK = """
import sys
from datasets import DatasetError, ImageFolder, write_pack
try:
    write_pack(ImageFolder(sys.argv[1]), sys.argv[2])
except DatasetError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def largest_file():
    """Limits the size of this process's files, like a disk that is full from there on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def noise_folder(tmp_path, save_image):
    """Eight 64x64 pictures of noise in two classes: a pack of 98,304 bytes and what HDF5 adds."""
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        save_image(tmp_path / "imgs" / ("ant", "bee")[i % 2] / f"{i}.png", pixels)
    return tmp_path / "imgs"


def fill(path):
    """The step of writing 100,000 bytes."""
    return lambda file: file.create_dataset(path, data=np.arange(100_000, dtype=np.uint8), chunks=(1000,))


def test_what_does_not_reach_the_disk_is_read_back_all_the_same(tmp_path, largest_file):
    largest_file(10)
    file = PatientFile(tmp_path / "f")
    assert file.write(b"0123456") == 7
    assert file.error is None
    assert file.write(b"789abcd") == 7  # room for three of them
    assert "File too large" in str(file.error)
    file.seek(12)
    file.write(b"XY")
    file.seek(0)
    assert file.read(16) == b"0123456789abXY\0\0"
    assert (file.tell(), file.seek(0, os.SEEK_END)) == (16, 14)
    with pytest.raises(OSError, match="File too large"):
        file.close()
    assert (tmp_path / "f").read_bytes() == b"0123456789"


@pytest.mark.parametrize("size", [0, 1, 500, 5000, 20_000, 99_999])
def test_a_file_that_the_disk_does_not_take_is_the_disk_s_error_and_closes(tmp_path, largest_file, size):
    largest_file(size)
    with pytest.raises(OSError, match="File too large"), Hdf5Writer(tmp_path / "f.h5") as writer:
        writer.do(fill("a"))
        writer.do(fill("b"))  # HDF5 may keep a part of the first in its own memory
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("datasets-hdf5")]


def test_an_exception_of_the_block_is_the_one_that_comes_out_though_the_disk_fails_too(tmp_path, largest_file):
    largest_file(1000)
    with pytest.raises(KeyboardInterrupt), Hdf5Writer(tmp_path / "f.h5") as writer:
        with pytest.raises(OSError, match="File too large"):
            for i in range(50):  # more than HDF5 keeps in its own memory
                writer.do(fill(f"a{i}"))
        raise KeyboardInterrupt


def test_a_file_that_goes_well_is_plain_hdf5(tmp_path):
    with Hdf5Writer(tmp_path / "f.h5") as writer:
        writer.do(fill("a"))
    with h5py.File(tmp_path / "f.h5") as file:
        np.testing.assert_array_equal(file["a"], np.arange(100_000, dtype=np.uint8))


def test_wherever_a_disk_fills_up_the_older_pack_stays_and_nothing_else(small_disk, noise_folder):
    disk = small_disk(f"size={64 * PAGE}")
    older, ballast = disk / "p.h5", disk / "ballast"
    older.write_bytes(b"the old pack")
    source, failures = ImageFolder(noise_folder), 0
    gc.freeze()  # only what is made here is looked through for garbage, each time
    for free in range(40):  # the pack takes 24 pages, and a few of HDF5's own
        ballast.write_bytes(bytes((62 - free) * PAGE))
        try:
            write_pack(source, older)
        except DatasetError as error:
            failures += 1
            assert str(error) == f"{older}: cannot be written: No space left on device"
            assert older.read_bytes() == b"the old pack"
        else:
            with ImagePack(older) as pack:
                assert all(np.array_equal(pack.read(i), source.read(i)) for i in range(8))
            break
        finally:
            assert sorted(path.name for path in disk.iterdir()) == ["ballast", "p.h5"]
        gc.collect()
    assert failures == free >= 24


def test_a_process_that_fills_the_disk_ends_as_after_any_error(small_disk, noise_folder):
    disk = small_disk(f"size={20 * PAGE}")
    command = [sys.executable, "-X", "faulthandler", "-c", PACK, str(noise_folder), str(disk / "p.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"{disk / 'p.h5'}: cannot be written: No space left on device\n")
    assert list(disk.iterdir()) == []
