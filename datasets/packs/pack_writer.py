"""Writing images to an image pack: one HDF5 file, written chunk by chunk, which appears whole or not at all."""

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
from datasets.labels.class_labels import are_labelled
from datasets.packs.fitting import ATTRIBUTE, PLAIN, fitting, text_from_fitting
from datasets.packs.hdf5_writer import Hdf5Writer
from datasets.packs.pack import SUFFIXES, ImagePack
from datasets.packs.structure import one_line
from datasets.preprocessing import Preprocessing
from datasets.source import ImageSource

# Rows are stored in chunks of about this size: large enough for the disk, small enough for reading a single row.
_CHUNK_BYTES = 2**20
_MOST_IN_BATCH = 512
_TEXTS_AT_A_TIME = 2**12


def write_pack(
    source: ImageSource,
    dest: str | Path,
    *,
    size: tuple[int, int] | None = None,
    preprocessing: Preprocessing | None = None,
    progress: Callable[[int, int], None] | None = None,
    max_bad: float = 0.05,
) -> list[Quarantined]:
    """Write images, chunk by chunk, to one HDF5 file that `ImagePack` reads.

    The file appears whole or not at all, whatever happens on the way.

    Args:
        source: The images; their names, labels and class names are written too.
        dest: The file, ending in .h5 or .hdf5; a pack of that name is replaced.
        size: Height and width; every image is fitted to them. None for that of `preprocessing`, or if the images
            already have the same size.
        preprocessing: How images are fitted (`resize`, `crop_fraction` and the like), so that a run with the same
            preprocessing reads what it would make of the images themselves; pixels stay as they are. None scales an
            image until it covers the size, then crops it to the centre.
        progress: Called with the number of images written so far and the total number of images.
        max_bad: Largest accepted share (0..1) of unreadable images.

    Returns:
        The unreadable images, which were left out.

    Raises:
        DatasetError: The images differ in size and no size is known, labels are no classes, or `dest` is a file of
            another kind.
        OutputError: `dest` cannot be written.
        TooManyUnreadableError: More than `max_bad` of the images are unreadable.
    """
    dest = Path(dest)
    if dest.suffix.lower() not in SUFFIXES:
        raise DatasetError(f"{dest}: expected a file name ending in {' or '.join(SUFFIXES)}")
    _refuse_to_replace(dest)
    _check_labels(source)
    size = size or (preprocessing.size if preprocessing is not None else None)
    if preprocessing is not None and size is None:
        raise DatasetError(
            f"{dest}: expected the size that preprocessing '{preprocessing.name}' fits images to, found none; give it "
            "with --size"
        )
    height, width = size or _first_size(source)
    rows = min(len(source), max(1, _CHUNK_BYTES // (height * width * 3)))
    fit = fitting(preprocessing or PLAIN, size) if size is not None else None
    stream = BatchStream(
        source,
        preprocessing=fit,
        batch_size=min(rows, _MOST_IN_BATCH),
        input_name="images",
        max_bad=max_bad,
    )
    with _whole_or_not_at_all(dest) as temporary, Hdf5Writer(temporary) as writer:
        writer.do(_create_images, (len(source), height, width, 3), rows)
        kept: list[int] = []
        changed = False
        for batch in stream:
            writer.do(_write_images, len(kept), batch.inputs["images"])
            kept.extend(batch.indices.tolist())
            changed = changed or (batch.sizes is not None and bool((batch.sizes != (height, width)).any()))
            if progress is not None:
                progress(len(kept), len(source))
        writer.do(_finish, source, kept, text_from_fitting(fit) if fit is not None and changed else None)
    return list(stream.quarantined)


def _refuse_to_replace(dest: Path) -> None:
    """Refuse to overwrite HDF5 that is no image pack, such as statistics or the inputs of a model, and what is no file.

    Raises:
        DatasetError: The file is one.
    """
    if dest.exists() and not (dest.is_file() or dest.is_dir()):
        raise DatasetError(f"{dest}: already exists and is no regular file; give another name")
    if not dest.is_file() or not h5py.is_hdf5(dest):
        return
    try:
        ImagePack(dest).close()
    except DatasetError:
        raise DatasetError(
            f"{dest}: already exists and is no image pack, so it is not replaced; give another name"
        ) from None


def _check_labels(source: ImageSource) -> None:
    """Check that a pack can hold the labels: one class for each image.

    Raises:
        DatasetError: It cannot.
    """
    if source.labels is None:
        return
    if source.labels.ndim != 1 or source.labels.dtype.kind != "i":
        found = "several an image" if source.labels.ndim > 1 else f"numbers such as {source.labels[0]:g}"
        raise DatasetError(
            f"{source.path}: expected labels that are class names or indices, which a pack holds, found {found}; "
            "pack the images without --labels"
        )
    if not are_labelled(source.labels).all():
        raise DatasetError(
            f"{source.path}: expected a label for each image, which a pack holds, found {len(source):,} images and "
            f"{int(are_labelled(source.labels).sum()):,} labels; pack the images without --labels"
        )


@contextmanager
def _whole_or_not_at_all(dest: Path) -> Iterator[Path]:
    """A temporary path beside `dest` that replaces it at the end, or is removed on any exception."""
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


def _finish(file: h5py.File, source: ImageSource, kept: Sequence[int], fitted: str | None) -> None:
    """Cut off the rows of images that could not be read, and write what belongs to those that could."""
    file["images"].resize(len(kept), axis=0)
    if fitted is not None:
        file["images"].attrs[ATTRIBUTE] = fitted
    _write_texts(file, "names", [source.names[index] for index in kept])
    if source.labels is not None:
        file.create_dataset("labels", data=source.labels[kept], chunks=True, fletcher32=True)
    if source.class_names is not None:
        _write_texts(file, "class_names", source.class_names)


def _first_size(source: ImageSource) -> tuple[int, int]:
    for index in range(len(source)):
        try:
            height, width = source.read(index).shape[:2]
        except UnreadableImageError:
            continue
        return height, width
    return 1, 1  # nothing is readable: the stream will raise the error


def _write_texts(file: h5py.File, name: str, texts: Sequence[str]) -> None:
    # File names need not be UTF-8; other bytes are kept as surrogates. Texts of fixed length are read without following
    # anything, and the checksum tells of damage.
    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    kind = h5py.string_dtype("utf-8", max(1, 1, *map(len, encoded)))
    options = {"chunks": True, "compression": "gzip", "shuffle": True, "fletcher32": True}
    stored = file.create_dataset(name, (len(encoded),), kind, **options if encoded else {})
    for first in range(0, len(encoded), _TEXTS_AT_A_TIME):  # one long text makes all of them long
        part = encoded[first : first + _TEXTS_AT_A_TIME]
        stored[first : first + len(part)] = np.array(part, kind)
