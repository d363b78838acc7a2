"""Images that are no files, of absurd shapes, or huge: set aside with a reason, or read without taking all memory."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import BatchStream, ImageFolder, Preprocessing, identify
from datasets.errors import DatasetError, UnreadableImageError
from datasets.preprocessing.geometry import Resizer, scaled_and_cropped, stretched

ROOT = Path(__file__).resolve().parents[2]


def png_of(width, height, depth=8, colour=2):
    """A PNG of zeros, written without making its pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = bytes(1 + width * depth // 8 * {0: 1, 2: 3}[colour])
    packer = zlib.compressobj(1)
    data = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def streamed(folder, **options):
    """Names that come through, and reasons of those that do not."""
    preprocessing = Preprocessing.preset("imagenet").bound_to((None, 3, 224, 224), "float32")
    stream = BatchStream(ImageFolder(folder), preprocessing=preprocessing, max_bad=1.0, **options)
    names = [name for batch in stream for name in batch.names]
    return names, {item.file: item.reason for item in stream.quarantined}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "imgs"
    path.mkdir()
    Image.new("RGB", (9, 9)).save(path / "a.png")
    return path


def test_a_pipe_and_a_device_are_set_aside_and_have_no_identity(folder):
    os.mkfifo(folder / ".pipe")
    (folder / "b.png").symlink_to(folder / ".pipe")
    (folder / "c.png").symlink_to("/dev/zero")
    assert streamed(folder) == (
        ["a.png"],
        {
            "b.png": "cannot be read: expected a file, found a pipe",
            "c.png": "cannot be read: expected a file, found a device",
        },
    )
    source = ImageFolder(folder)
    assert identify(source, [0]).entries[0].name == "a.png"
    for index in (1, 2):
        with pytest.raises(UnreadableImageError):
            identify(source, [index])


def test_a_file_beyond_the_bound_is_set_aside_unread(folder):
    path = folder / "b.tif"
    path.write_bytes(b"II*\0")
    os.truncate(path, 2**40)
    assert streamed(folder) == (["a.png"], {"b.tif": "a file of 1024.0 GiB; at most 2 are read"})
    with pytest.raises(UnreadableImageError, match="a file of 1024"):
        identify(ImageFolder(folder), [1])


def test_pixels_come_from_the_image_and_not_from_a_file_of_its_name_in_the_working_folder(tmp_path, monkeypatch):
    """Pillow maps uncompressed images by their file names, if it is given one."""
    (tmp_path / "imgs").mkdir()
    for place, value in (("imgs", 200), (".", 10)):
        Image.fromarray(np.full((8, 8), value, np.uint8)).save(tmp_path / place / "a.tif")
    monkeypatch.chdir(tmp_path)
    assert ImageFolder("imgs").read(0).max() == 200 == ImageFolder("imgs").read(0).min()


PROGRAM = """
import resource, sys
from pathlib import Path
from tests.datasets.test_hostile_images import streamed
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
names, reasons = streamed(sys.argv[1], threads=2, batch_size=4)
peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "VmHWM:")
print(len(names), len(reasons), int(peak) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")
@pytest.mark.parametrize(
    ("size", "most_mb"),
    [
        ((1, 20_000, 8, 2), 400),
        ((20_000, 1, 8, 2), 400),
        ((3, 2_000_000, 8, 0), 400),
        ((4500, 4500, 16, 0), 500),
    ],
)
def test_memory_follows_the_pixels_whatever_the_shape(folder, size, most_mb):
    image = png_of(*size)
    for name in "bc":  # both are decoded at once
        (folder / f"{name}.png").write_bytes(image)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    read, left_out, peak = map(int, done.stdout.split())
    assert (read, left_out) == (3, 0)
    assert peak < most_mb


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("shape", [(1500, 3), (3, 1500), (900, 1), (2, 1111)])
def test_a_crop_made_from_what_it_keeps_is_that_of_the_whole(monkeypatch, shape, interpolation):
    image = np.random.default_rng(3).integers(0, 255, (*shape, 3)).astype(np.uint8)
    whole = scaled_and_cropped(image, (64, 48), 0.875, Resizer(interpolation))
    monkeypatch.setattr("datasets.preprocessing.geometry._OWN_PIXELS", 1)
    part = scaled_and_cropped(image, (64, 48), 0.875, Resizer(interpolation))
    assert part.shape == whole.shape == (64, 48, 3)
    differences = np.abs(part.astype(int) - whole)
    if interpolation == "nearest":  # a position on an edge may fall to the other side
        assert (differences > 0).mean() < 0.02
    else:
        assert differences.max() <= 1


def test_a_narrow_image_is_stretched_without_making_something_far_larger(monkeypatch):
    image = np.random.default_rng(3).integers(0, 255, (3000, 2, 3)).astype(np.uint8)
    whole = stretched(image, (50, 40), Resizer("bilinear"))
    monkeypatch.setattr("datasets.preprocessing.geometry._OWN_PIXELS", 1)
    assert np.abs(stretched(image, (50, 40), Resizer("bilinear")).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "I;16", "1"])
def test_large_images_become_arrays_in_bands_that_equal_the_whole(tmp_path, monkeypatch, mode):
    values = np.random.default_rng(1).integers(0, 65535, (31, 40), np.uint16)
    image = Image.fromarray(values) if mode == "I;16" else Image.fromarray((values >> 8).astype(np.uint8)).convert(mode)
    image.save(tmp_path / "a.tif")
    whole = ImageFolder(tmp_path).read(0)
    monkeypatch.setattr("datasets.decoding._BAND_PIXELS", 40 * 4)
    assert np.array_equal(ImageFolder(tmp_path).read(0), whole)


def test_a_batch_beyond_the_bound_names_the_size_that_fits(folder):
    preprocessing = Preprocessing.preset("imagenet").bound_to((None, 3, 8192, 8192), "float32")
    for i in range(4):
        Image.new("RGB", (9, 9)).save(folder / f"b{i}.png")
    with pytest.raises(DatasetError, match=r"5 samples of 768 MiB are more than .*; use a --batch-size of at most 2"):
        BatchStream(ImageFolder(folder), preprocessing=preprocessing)
    BatchStream(ImageFolder(folder), preprocessing=preprocessing, batch_size=2)


def test_an_input_of_absurd_size_is_refused():
    with pytest.raises(DatasetError, match=r"images of 1000000 x 1000000 pixels .* at most 67,108,864"):
        Preprocessing.preset("imagenet").bound_to((None, 3, 10**6, 10**6), "float32")
