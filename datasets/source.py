"""Protocols for sources of images or tensors; folders and packs satisfy them without inheriting from them.

A source of your own needs what `ImageSource` or `TensorSource` lists, and no more.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from datasets.decoding import Wanted


class Source(Protocol):
    """An ordered, indexed collection of samples with names and optional labels."""

    @property
    def path(self) -> Path:
        """The folder or file that holds the samples."""

    @property
    def names(self) -> tuple[str, ...]:
        """One unique name per sample, in index order."""

    @property
    def labels(self) -> NDArray[Any] | None:
        """Class index of every sample, int64 [N], or a number that is no class, float64 [N]; None if unlabelled."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names by class index, or None if they are unknown."""

    def __len__(self) -> int: ...

    def content(self, index: int) -> bytes:
        """The stored bytes of a sample, from which its identity is hashed."""

    def fingerprint(self, index: int) -> str:
        """A string that changes when the stored sample may have changed, made without reading the sample."""


@runtime_checkable
class PiecewiseSource(Protocol):
    """A source that need not hold all of a sample's stored bytes at a time."""

    def pieces(self, index: int) -> Iterator[bytes]:
        """What `content` gives, in pieces."""


@runtime_checkable
class ImageSource(Source, Protocol):
    """A source whose samples are 8-bit RGB images."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """The image as uint8 [H, W, 3] RGB; raises UnreadableImageError. May be called from several threads."""


@runtime_checkable
class DeepImageSource(ImageSource, Protocol):
    """A source whose images may have more bits than 8, or alpha, and that gives these to whoever wants them."""

    def read_pixels(self, index: int, wanted: Wanted) -> NDArray[Any]:
        """The image with all its bits, see `datasets.decoding.decode_pixels`; raises UnreadableImageError."""

    def lacks_range(self, index: int) -> bool:
        """Does an image have more bits than 8, and does nothing say what they mean? No pixel is decoded for it."""


@runtime_checkable
class BoxSource(ImageSource, Protocol):
    """A source of images whose labels are the boxes of objects in them.

    Attributes:
        text: How the labels were read, for people.
    """

    text: str

    def boxes(self, index: int, height: int, width: int) -> Any:  # noqa: ANN401 - see datasets.boxes.box_labels
        """The objects in an image of this size, an `ImageBoxes`."""


@runtime_checkable
class TensorSource(Source, Protocol):
    """A source whose samples are ready-made model inputs, one array per input."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model inputs in a sample."""

    def load(self, index: int) -> dict[str, NDArray[np.generic]]:
        """One sample: arrays without a batch axis, by input name. May be called from several threads."""


AnySource = ImageSource | TensorSource
