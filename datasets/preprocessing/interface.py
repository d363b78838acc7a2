"""What turns images into a model's input: a description, or a function of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from datasets.decoding import Wanted
from datasets.preprocessing.geometry import Frame


class ImagePreprocessing(Protocol):
    """Turns images into a model's input, in two steps: one image at a time, then a batch of them."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the input; None if unknown."""

    @property
    def resize(self) -> str:
        """How images get that size."""

    @property
    def dtype(self) -> str:
        """NumPy's name for the input's type."""

    @property
    def is_bound(self) -> bool:
        """Is all that the input leaves open determined?"""

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one input without the batch axis."""

    @property
    def wanted(self) -> Wanted:
        """What is taken of an image beyond 8-bit RGB."""

    def bound_to(self, shape: Sequence[int | str | None], dtype: str) -> ImagePreprocessing:
        """The same for one model input; raises DatasetError if they do not fit."""

    def fitted(self, image: NDArray[Any]) -> NDArray[Any]:
        """One image, [H, W, C], as `normalised` takes it. May be called from several threads."""

    def normalised(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Fitted images, stacked, as one contiguous array [B, *sample_shape]."""

    def frame(self, height: int, width: int) -> Frame:
        """Where an image of this size lies in the input; raises DatasetError if that is not known."""

    def to_dict(self) -> dict[str, object]:
        """What decides on the values, as JSON values."""
