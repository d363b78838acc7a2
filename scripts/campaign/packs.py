"""HDF5 packs: of our own writer and of h5py, mutated; and packs made to lead out of the file, or to take all memory."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from campaign.cases import MOST_CHARACTERS, Fault

SIZE = 500
SECONDS = 90

_PIXELS = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 3)).astype(np.uint8)


def prepare(folder: Path) -> None:
    """Write a pack with our writer, and one as packs were written before."""
    from datasets import ImageFolder, write_pack

    for i, pixels in enumerate(_PIXELS):
        path = folder / "imgs" / "ab"[i % 2] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    write_pack(ImageFolder(folder / "imgs"), folder / "own.h5")
    with h5py.File(folder / "h5py.h5", "w") as file:
        file.create_dataset("images", data=_PIXELS, chunks=(16, 8, 8, 3), maxshape=(None, 8, 8, 3))
        file["labels"] = np.arange(40) % 2
        file.create_dataset("names", data=[f"ab/{i:03}.png" for i in range(40)], dtype=h5py.string_dtype())
        file.create_dataset("class_names", data=["a", "b"], dtype=h5py.string_dtype())
    with h5py.File(folder / "other.h5", "w") as file:
        file["images"] = _PIXELS


def attempt(chance: random.Random, folder: Path) -> str:
    """Open a pack and read all of it: one short line, or rows that are images or unreadable."""
    from datasets import DatasetError, open_source
    from datasets.errors import UnreadableImageError
    from datasets.source import ImageSource

    path = folder / "pack.h5"
    path.unlink(missing_ok=True)
    if chance.random() < 0.8:
        _write_mutated(chance, folder, path)
    else:
        _HOSTILE[chance.randrange(len(_HOSTILE))](folder, path)
    word = "read"
    try:
        source = open_source(path, inputs=["x"] if chance.random() < 0.1 else None)
    except DatasetError as error:
        if len(str(error)) > MOST_CHARACTERS or "\n" in str(error):
            raise Fault(f"no short line: {str(error)[:300]}") from error
        return "refused"
    if not isinstance(source, ImageSource):
        return "tensors"
    for index in range(len(source)):
        try:
            if source.read(index).dtype != np.uint8:
                raise Fault(f"row {index}: {source.read(index).dtype}")
        except UnreadableImageError:
            word = "unreadable rows"
    return word


def _write_mutated(chance: random.Random, folder: Path, path: Path) -> None:
    data = bytearray((folder / chance.choice(("own.h5", "h5py.h5"))).read_bytes())
    how = chance.choice(("flip", "flip", "zero", "ones", "cut", "copy", "noise", "many"))
    at, length = chance.randrange(len(data)), chance.choice((1, 8, 64, 512, 4096))
    if how == "flip":
        for _ in range(chance.choice((1, 1, 3, 10))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif how in ("zero", "ones"):
        data[at : at + length] = (b"\0" if how == "zero" else b"\xff") * len(data[at : at + length])
    elif how == "cut":
        del data[at:]
    elif how == "copy":
        other = chance.randrange(len(data))
        data[at : at + length] = data[other : other + len(data[at : at + length])]
    elif how == "noise":
        data[at : at + length] = chance.randbytes(len(data[at : at + length]))
    else:
        for _ in range(200):
            data[chance.randrange(len(data))] = chance.randrange(256)
    path.write_bytes(data)


def _made(fill: Callable[[h5py.File], Any], *, sound: bool = True) -> Callable[[Path, Path], None]:
    def write(folder: Path, path: Path) -> None:
        del folder
        with h5py.File(path, "w") as file:
            if sound:
                file["images"] = _PIXELS
            fill(file)

    return write


def _declared(name: str, shape: tuple[int, ...], kind: Any, **options: Any) -> Callable[[Path, Path], None]:
    return _made(lambda file: file.create_dataset(name, shape, kind, **options), sound=name != "images")


def _linked(name: str, link: Any) -> Callable[[Path, Path], None]:
    return _made(lambda file: file.__setitem__(name, link), sound=name != "images")


def _virtual(folder: Path, path: Path) -> None:
    layout = h5py.VirtualLayout(_PIXELS.shape, np.uint8)
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "images", _PIXELS.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("images", layout)


def _pipe(folder: Path, path: Path) -> None:
    del folder
    os.mkfifo(path)


def _device(folder: Path, path: Path) -> None:
    del folder
    path.symlink_to("/dev/zero")


_TEXT = h5py.string_dtype()
_HOSTILE: tuple[Callable[[Path, Path], None], ...] = (
    _linked("images", h5py.ExternalLink("other.h5", "/images")),
    _linked("names", h5py.ExternalLink("other.h5", "/images")),
    _linked("images", h5py.SoftLink("/images")),
    _linked("labels", h5py.SoftLink("/labels")),
    _linked("x", h5py.ExternalLink("other.h5", "/images")),
    _virtual,
    _pipe,
    _device,
    _declared("images", (4, 8, 8, 3), np.uint8, external=[("/etc/passwd", 0, 768)]),
    _declared("images", (2**40, 8, 8, 3), np.uint8, chunks=(64, 8, 8, 3)),
    _declared("images", (2**62, 1, 1, 3), np.uint8, chunks=(64, 1, 1, 3)),
    _declared("images", (64, 20_000, 20_000, 3), np.uint8, chunks=(1, 100, 100, 3)),
    _declared("images", (64, 2000, 2000, 3), np.uint8, chunks=(1, 100, 100, 3)),
    _declared("images", (512, 2048, 4096, 3), np.uint8, chunks=(512, 512, 1024, 3), compression="gzip"),
    _declared("names", (2**40,), _TEXT, chunks=(64,)),
    _declared("names", (40,), "S100000"),
    _declared("labels", (2**40,), np.int64, chunks=(64,)),
    _declared("class_names", (2**40,), _TEXT, chunks=(64,)),
    _made(lambda file: file.create_dataset("names", data=h5py.Empty("S3"))),
    _made(lambda file: file.create_dataset("labels", data=h5py.Empty("i8"))),
    _made(lambda file: file.attrs.__setitem__("class_names", h5py.Empty("S3"))),
    _made(lambda file: file.create_dataset("images", data=h5py.Empty("u1")), sound=False),
    _made(lambda file: file.__setitem__("labels", np.dtype("i8"))),
    _made(lambda file: file.__setitem__("loop/up", file["/"])),
)
