import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def save_image():
    """Writes a lossless or lossy image file of one colour, or of the array given, and returns its path."""

    def save(path, colour=(10, 20, 30), size=(8, 6), **options):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = size
        pixels = colour if isinstance(colour, np.ndarray) else np.full((height, width, 3), colour, np.uint8)
        Image.fromarray(pixels).save(path, **options)
        return path

    return save


@pytest.fixture
def numbered_folder(tmp_path, save_image):
    """A folder of `count` 4x4 PNGs; the red value of image i is i. The files with indices in `bad` are not images."""

    def make(count, bad=(), name="imgs"):
        for i in range(count):
            path = tmp_path / name / f"{i:03}.png"
            if i in bad:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(b"this is no image")
            else:
                save_image(path, (i, 0, 0), (4, 4))
        return tmp_path / name

    return make


@pytest.fixture
def decoding_threads():
    """Counts the live decoding threads."""
    return lambda: sum(thread.name.startswith("datasets-decode") for thread in threading.enumerate())


@pytest.fixture
def write_h5(tmp_path):
    """Writes an HDF5 file with the given datasets and returns its path."""

    def write(name="pack.h5", attributes=None, **datasets):
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for key, value in datasets.items():
                texts = isinstance(value, list) and value and isinstance(value[0], str)
                file.create_dataset(key, data=value, dtype=h5py.string_dtype("utf-8") if texts else None)
            file.attrs.update(attributes or {})
        return path

    return write


@pytest.fixture
def tensor_pack(write_h5):
    """A pack with inputs `ids` int64 [N, 2], `image` float32 [N, 1, 2, 2] (value: the row) and labels row % 3."""

    def make(count):
        image = np.repeat(np.arange(count, dtype=np.float32), 4).reshape(count, 1, 2, 2)
        return write_h5(ids=np.arange(2 * count).reshape(count, 2), image=image, labels=np.arange(count) % 3)

    return make
