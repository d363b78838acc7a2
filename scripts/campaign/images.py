"""Image files: mutated, of absurd shapes, huge, or no files at all but pipes, devices and links."""

from __future__ import annotations

import io
import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from campaign.cases import Fault

SIZE = 5000
SECONDS = 60

_MODES = {
    "png": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "jpg": ("RGB", "L", "CMYK"),
    "bmp": ("RGB", "L", "1", "P"),
    "webp": ("RGB", "RGBA"),
    "tif": ("RGB", "RGBA", "L", "CMYK", "1", "I;16", "F"),
}
_OPTIONS = {
    "jpg": ({}, {"progressive": True}, {"quality": 5, "subsampling": 2}),
    "tif": ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"compression": "packbits"}),
    "webp": ({}, {"lossless": True}),
}
_sound: list[tuple[str, bytes]] = []


def prepare(folder: Path) -> None:
    """Write one sound image, and keep others in many forms to spoil."""
    del folder
    chance = np.random.default_rng(1)
    base = Image.fromarray(chance.integers(0, 255, (40, 56, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for ending, modes in _MODES.items():
        for mode in modes:
            for options in _OPTIONS.get(ending, ({},)):
                if mode == "I;16":
                    image = Image.fromarray(chance.integers(0, 65535, (40, 56), np.uint16))
                else:
                    image = base.convert(mode)
                file = io.BytesIO()
                kind = {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending.upper())
                extra = {"exif": exif} if ending in ("jpg", "png", "webp") else {}
                try:
                    image.save(file, format=kind, **options, **extra)
                except (OSError, ValueError, KeyError):  # not every mode goes with every compression
                    continue
                _sound.append((ending, file.getvalue()))
                if ending == "jpg":  # without EXIF, Pillow is not needed
                    plain = io.BytesIO()
                    image.save(plain, format=kind, **options)
                    _sound.append((ending, plain.getvalue()))


def attempt(chance: random.Random, folder: Path) -> str:
    """Stream a sound image beside a bad one: the sound one comes through, and the bad one is named if it does not."""
    from datasets import BatchStream, ImageFolder, Preprocessing, identify
    from datasets.errors import DatasetError

    here = folder / "images"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    pixels = np.full((9, 9, 3), 77, np.uint8)
    Image.fromarray(pixels).save(here / "a.png")
    kind = chance.choices(list(_KINDS), weights=[weight for weight, _ in _KINDS.values()])[0]
    _KINDS[kind][1](chance, here)
    preset = chance.choice(("imagenet", "unit", "yolo", "raw"))
    side = chance.choice((8, 32, 224))
    preprocessing = Preprocessing.preset(preset).bound_to((None, 3, side, side), "float32")
    source = ImageFolder(here)
    stream = BatchStream(source, preprocessing=preprocessing, batch_size=2, threads=2, max_bad=1.0)
    names: list[str] = []
    for batch in stream:
        names.extend(batch.names)
        if not all(np.isfinite(array).all() for array in batch.inputs.values()):
            raise Fault(f"{kind}: values that are not finite")
    if "a.png" not in names:
        raise Fault(f"{kind}: the sound image is lost")
    left_out = {item.file: item.reason for item in stream.quarantined}
    if sorted([*names, *left_out]) != sorted(source.names):
        raise Fault(f"{kind}: {source.names} gave {names} and {left_out}")
    if any(len(reason) > 400 or "\n" in reason for reason in left_out.values()):
        raise Fault(f"{kind}: a reason that is no short line: {left_out}")
    try:
        identify(source, range(len(source)))
    except DatasetError as error:
        if not left_out:
            raise Fault(f"{kind}: read, but without identity: {error}") from error
    if kind == "mutated" and (here / "b.jpg").exists():
        _check_jpeg((here / "b.jpg").read_bytes())
    return "quarantined" if left_out else "read"


def _check_jpeg(data: bytes) -> None:
    """Check that a JPEG gives the pixels, or the error, that Pillow alone gives.

    Raises:
        Fault: It does not.
    """
    from datasets import decoding
    from datasets.errors import UnreadableImageError

    found: list[Any] = []
    for patch in (nullcontext(), mock.patch.object(decoding, "common_jpeg", lambda data: None)):
        with patch:
            try:
                found.append(decoding.decode_image(io.BytesIO(data), "b.jpg", "JPEG").tolist())
            except UnreadableImageError as error:
                found.append(str(error))
    if found[0] != found[1]:
        raise Fault(f"a JPEG of {len(data)} bytes is not what Pillow makes of it")


def _mutated(chance: random.Random, here: Path) -> None:
    ending, sound = chance.choice(_sound)
    data = bytearray(sound)
    how = chance.choice(("flip", "flip", "cut", "zero", "ones", "copy", "other", "head"))
    at, length = chance.randrange(len(data)), chance.choice((1, 2, 4, 64, 512))
    if how == "flip":
        for _ in range(chance.choice((1, 1, 4, 40))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del data[at:]
    elif how in ("zero", "ones"):
        data[at : at + length] = (b"\0" if how == "zero" else b"\xff") * len(data[at : at + length])
    elif how == "copy":
        other = chance.randrange(len(data))
        data[at:at] = data[other : other + length]
    elif how == "head":
        at = chance.randrange(min(64, len(data)))
        data[at : at + 4] = chance.choice((b"\xff\xff\xff\x7f", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"))
    else:
        ending = chance.choice(list(_MODES))
    (here / f"b.{ending}").write_bytes(data)


def png_of(width: int, height: int, depth: int = 8, colour: int = 2, rows: int | None = None) -> bytes:
    """A PNG of that size; `rows` of it hold zeros, all by default, and the others are missing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    row = bytes(1 + (width * channels * depth + 7) // 8)
    packer = zlib.compressobj(1)
    parts = [packer.compress(row) for _ in range(height if rows is None else rows)]
    data = b"".join([*parts, packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _odd_shape(chance: random.Random, here: Path) -> None:
    long = chance.choice((300, 2000, 20_000, 200_000))
    short = chance.choice((1, 1, 2, 3, 7))
    size = (long, short) if chance.random() < 0.5 else (short, long)
    depth, colour = chance.choice(((8, 2), (8, 0), (16, 0), (8, 6)))
    (here / "b.png").write_bytes(png_of(*size, depth, colour))


def _large(chance: random.Random, here: Path) -> None:
    side = chance.choice((3000, 6000, 9459))
    depth, colour = chance.choice(((8, 2), (8, 0), (16, 0), (8, 6)))
    contents = png_of(side, side, depth, colour)
    for name in ("b.png", "c.png")[: chance.choice((1, 2))]:
        (here / name).write_bytes(contents)


def _bomb(chance: random.Random, here: Path) -> None:
    size = chance.choice(((40_000, 40_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (2**31 - 1, 1), (2, 44_000_000)))
    (here / "b.png").write_bytes(png_of(*size, rows=0))


def _no_file(chance: random.Random, here: Path) -> None:
    kind = chance.choice(("pipe", "zero", "null", "random", "folder", "dangling", "itself", "proc", "kmsg"))
    ending = chance.choice(list(_MODES))
    path = here / f"b.{ending}"
    if kind == "pipe":
        os.mkfifo(here / ".pipe")
        path.symlink_to(here / ".pipe")
        return
    target = {
        "zero": "/dev/zero",
        "null": "/dev/null",
        "random": "/dev/urandom",
        "folder": "/etc",
        "dangling": "nothing",
        "itself": path.name,
        "proc": "/proc/self/mem",
        "kmsg": "/proc/kmsg",
    }[kind]
    if kind == "folder":
        (here / ".folder").mkdir()
        target = str(here / ".folder")
    path.symlink_to(target)


def _sparse(chance: random.Random, here: Path) -> None:
    ending, head = chance.choice(
        (("tif", b"II*\0"), ("png", b"\x89PNG\r\n\x1a\n"), ("bmp", b"BM"), ("jpg", b"\xff\xd8\xff"))
    )
    path = here / f"b.{ending}"
    path.write_bytes(head)
    os.truncate(path, chance.choice((2**27, 2**30, 3 * 2**30, 2**40)))


_KINDS: dict[str, tuple[int, Callable[[random.Random, Path], None]]] = {
    "mutated": (900, _mutated),
    "odd shape": (50, _odd_shape),
    "large": (4, _large),
    "bomb": (20, _bomb),
    "no file": (40, _no_file),
    "sparse": (4, _sparse),
}
