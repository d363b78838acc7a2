"""Writing images into an image pack: one HDF5 file, a chunk at a time, whole or not at all."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from datasets.batches import BatchStream, Quarantined
from datasets.errors import DatasetError, OutputError, UnreadableImageError
from datasets.packs.hdf5_writer import Hdf5Writer
from datasets.packs.pack import SUFFIXES, one_line
from datasets.preprocessing import Preprocessing
from datasets.source import ImageSource

# Rows are stored in chunks of about this size: large enough for the disk, small enough to read one row.
_CHUNK_BYTES = 2**20
_MOST_IN_BATCH = 512


def write_pack(
    source: ImageSource,
    dest: str | Path,
    *,
    size: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    max_bad: float = 0.05,
) -> list[Quarantined]:
    """Writes images into one HDF5 file that `ImagePack` reads, a chunk at a time.

    The file appears whole or not at all, whatever happens on the way.

    Args:
        source: the images; their names, labels and class names go along.
        dest: the file, ending in .h5 or .hdf5; replaced if it exists.
        size: height and width: every image is scaled until its sides cover them, then cropped to the centre. None
            for images that have one size already.
        progress: called with the number of images written so far and the number of images in all.
        max_bad: the largest share (0..1) of unreadable images that is put up with.

    Returns:
        The unreadable images, which were left out.

    Raises:
        DatasetError: images of different sizes and no `size`.
        OutputError: `dest` cannot be written.
        TooManyUnreadableError: more than `max_bad` of the images are unreadable.
    """
    dest = Path(dest)
    if dest.suffix.lower() not in SUFFIXES:
        raise DatasetError(f"{dest}: expected a file name ending in {' or '.join(SUFFIXES)}")
    height, width = size or _first_size(source)
    rows = min(len(source), max(1, _CHUNK_BYTES // (height * width * 3)))
    preprocessing = None
    if size is not None:
        preprocessing = Preprocessing(
            "pack", size, crop_fraction=1.0, scale=1.0, layout="nhwc", dtype="uint8", interpolation="bilinear"
        )
    stream = BatchStream(
        source,
        preprocessing=preprocessing,
        batch_size=min(rows, _MOST_IN_BATCH),
        input_name="images",
        max_bad=max_bad,
    )
    with _whole_or_not_at_all(dest) as temporary, Hdf5Writer(temporary) as writer:
        writer.do(_create_images, (len(source), height, width, 3), rows)
        kept: list[int] = []
        for batch in stream:
            writer.do(_write_images, len(kept), batch.inputs["images"])
            kept.extend(batch.indices.tolist())
            if progress is not None:
                progress(len(kept), len(source))
        writer.do(_finish, source, kept)
    return list(stream.quarantined)


@contextmanager
def _whole_or_not_at_all(dest: Path) -> Iterator[Path]:
    """A temporary path beside `dest` that takes its place at the end, or vanishes on any exception."""
    temporary = dest.with_name(f".{dest.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(dest)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{dest}: cannot be written: {error.strerror or one_line(error)}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _create_images(file: h5py.File, shape: tuple[int, int, int, int], rows: int) -> None:
    file.create_dataset("images", shape, np.uint8, chunks=(rows, *shape[1:]), maxshape=(None, *shape[1:]))


def _write_images(file: h5py.File, first: int, images: NDArray[Any]) -> None:
    file["images"][first : first + len(images)] = images


def _finish(file: h5py.File, source: ImageSource, kept: Sequence[int]) -> None:
    """Cut off the rows of images that could not be read, and write what belongs to those that could."""
    file["images"].resize(len(kept), axis=0)
    _write_texts(file, "names", [source.names[index] for index in kept])
    if source.labels is not None:
        file["labels"] = source.labels[kept]
    if source.class_names is not None:
        _write_texts(file, "class_names", source.class_names)


def _first_size(source: ImageSource) -> tuple[int, int]:
    for index in range(len(source)):
        try:
            height, width = source.read(index).shape[:2]
        except UnreadableImageError:
            continue
        return height, width
    return 1, 1  # nothing is readable, which the stream will say


def _write_texts(file: h5py.File, name: str, texts: Sequence[str]) -> None:
    # File names need not be UTF-8; such bytes come and go as surrogates.
    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    file.create_dataset(name, data=encoded, dtype=h5py.string_dtype("utf-8"))
