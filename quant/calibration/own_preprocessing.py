"""Preprocessing by a function of the user's own, `file.py:callable`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets import DatasetError
from datasets.decoding import Wanted
from datasets.preprocessing import Frame
from quant.settings.user_code import OF_USER_CODE, described, file_of, load_callable

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class OwnPreprocessing:
    """Calls the user's function with each image.

    It gets uint8 [H, W, 3] RGB, or all bits of an image that has more, [H, W, C], and returns one input without the
    batch axis, or with a batch axis of 1. Several threads may call it at a time.

    Attributes:
        spec: `file.py:callable`.
        sha256: Of the file.
        function: The callable.
        sample_shape: Shape of one input; empty until it is bound.
        dtype: NumPy's name for the input's type; empty until it is bound.
        size: Height and width that were asked for, of an input that leaves them open.
    """

    spec: str
    sha256: str
    function: Callable[[NDArray[Any]], Any] = field(compare=False)
    sample_shape: tuple[int, ...] = ()
    dtype: str = ""
    size: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """For people."""
        return self.spec

    @property
    def resize(self) -> str:
        """Only the function knows."""
        return "own"

    @property
    def is_bound(self) -> bool:
        """Is it known what the function must return?"""
        return bool(self.sample_shape)

    @property
    def wanted(self) -> Wanted:
        """All bits, whatever their range: the function knows what they mean."""
        return Wanted(any_range=True)

    def bound_to(self, shape: Sequence[int | str | None], dtype: str) -> OwnPreprocessing:
        """The same for one model input.

        Raises:
            DatasetError: The input leaves its size open, and no size is asked for.
        """
        axes = [axis if isinstance(axis, int) and axis > 0 else None for axis in shape[1:]]
        open_axes = [i for i, axis in enumerate(axes) if axis is None]
        if self.size is not None and len(open_axes) == 2:
            for i, side in zip(open_axes, self.size, strict=True):
                axes[i] = side
        fixed = tuple(axis for axis in axes if axis is not None)
        if len(fixed) < len(axes) or not fixed:
            shown = ", ".join("?" if not isinstance(axis, int) else str(axis) for axis in shape)
            raise DatasetError(
                f"the model input [{shown}] leaves sizes open; state them with --input-size HEIGHTxWIDTH"
            )
        return replace(self, sample_shape=fixed, dtype=dtype)

    def fitted(self, image: NDArray[Any]) -> NDArray[Any]:
        """What the function makes of an image.

        Raises:
            DatasetError: It fails, or returns something else than the model's input.
        """
        try:
            made = np.asarray(self.function(image))
        except OF_USER_CODE as error:
            raise DatasetError(f"--preprocess {self.spec}: {described(error, file_of(self.spec))}") from error
        if made.shape == (1, *self.sample_shape):
            made = made[0]
        if made.shape != self.sample_shape or not np.can_cast(made.dtype, self.dtype, "same_kind"):
            raise DatasetError(
                f"--preprocess {self.spec}: expected an array {list(self.sample_shape)} of {self.dtype}, found "
                f"{list(made.shape)} of {made.dtype}"
            )
        return made.astype(self.dtype, copy=False)

    def normalised(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The inputs as they are."""
        return np.ascontiguousarray(pixels)

    def frame(self, height: int, width: int) -> Frame:
        """Where an image lies in the input, as if it were stretched over it: only the function knows.

        This serves builds that are held against FP32 on the same inputs; labels of places are refused before.
        """
        sides = self.sample_shape[1:] if self.sample_shape[0] in _CHANNELS else self.sample_shape[:2]
        if len(sides) != 2:
            return Frame((1, 1), (0, 0), (width, height))
        return Frame((sides[1] / width, sides[0] / height), (0, 0), (width, height))

    def to_dict(self) -> dict[str, object]:
        """What decides on the values: the file's contents and the callable. Files that it imports do not count."""
        return {"name": self.spec, "callable": self.spec.rpartition(":")[2], "sha256": self.sha256}

    def __reduce__(self) -> tuple[Any, ...]:  # another process loads the function again
        return _loaded_again, (self.spec, self.sha256, self.sample_shape, self.dtype, self.size)


def own_preprocessing(spec: str) -> OwnPreprocessing:
    """Load the function.

    Raises:
        SettingsError: See `load_callable`.
    """
    function, path = load_callable(spec, "preprocess"), Path(file_of(spec))
    return OwnPreprocessing(spec, hashlib.sha256(path.read_bytes()).hexdigest(), function)


def _loaded_again(
    spec: str, sha256: str, sample_shape: tuple[int, ...], dtype: str, size: tuple[int, int] | None
) -> OwnPreprocessing:
    made = own_preprocessing(spec)
    if made.sha256 != sha256:
        raise DatasetError(f"--preprocess {spec}: has changed since the run began; run it again")
    return replace(made, sample_shape=sample_shape, dtype=dtype, size=size)
