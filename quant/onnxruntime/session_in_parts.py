"""Runs a batch a few images at a time on all processors, for builds that only an evaluation runs.

As it is written, an INT8 model spends a large part of its time on Q/DQ pairs, which ONNX Runtime runs on one processor,
and which read and write memory rather than compute. Parts of a few images, each run by a thread of its own, use all
processors and stay in their caches.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.processors import usable_processors
from quant.onnx_graph.light_model import AnyModel, bytes_of_constants, light_model
from quant.onnxruntime.session import OnnxRuntimeSession

Array = NDArray[Any]

_SMALL_PART = 4  # images
_LARGEST_WEIGHTS = 2**28  # bytes; each part reads all weights


class SessionInParts:
    """A model as it is written, run in parts where they give the very same outputs as larger ones."""

    def __init__(self, model: AnyModel, *, name: str) -> None:
        """Load a model; see `OnnxRuntimeSession`.

        Raises:
            BuildError: ONNX Runtime cannot load it.
        """
        self._model, self._name = light_model(model), name
        self._processors = usable_processors()
        small = bytes_of_constants(self._model.proto) <= _LARGEST_WEIGHTS
        self._session = self._opened(threads=1 if small else None)
        self._parts = small and self._session.fixed_batch is None
        if small and not self._parts:
            self._session = self._opened(threads=None)
        self._part = 0  # images in a part; 0 until the first batch
        self._axes: list[int] = []  # of the images, by output

    def _opened(self, threads: int | None) -> OnnxRuntimeSession:
        return OnnxRuntimeSession(self._model, name=self._name, exact=True, threads=threads)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Outputs for a batch, see `OnnxRuntimeSession.run`."""
        size = len(next(iter(inputs.values())))
        if self._parts and not self._part and size > _SMALL_PART:
            self._decide(inputs, size)
        if not self._parts or size <= self._part or not self._part:
            return self._session.run(inputs)
        starts = range(0, size, self._part)
        with ThreadPoolExecutor(min(self._processors, len(starts)), "calib-exact") as threads:
            parts = list(threads.map(lambda start: self._session.run(_images(inputs, start, self._part)), starts))
        return [np.concatenate(arrays, axis) for arrays, axis in zip(zip(*parts, strict=True), self._axes, strict=True)]

    def _decide(self, inputs: Mapping[str, Array], size: int) -> None:
        """Try parts of two sizes on the first images: use the quicker, or none where the outputs differ."""
        large = max(-(-size // self._processors), _SMALL_PART + 1)
        together = self._session.run(_images(inputs, 0, large))
        apart = [
            self._session.run(_images(inputs, start, min(_SMALL_PART, large - start)))
            for start in range(0, large, _SMALL_PART)
        ]
        axes = [_axis(arrays) for arrays in zip(together, *apart, strict=True)]
        self._axes = [axis for axis in axes if axis is not None]
        if len(self._axes) < len(axes):
            self._parts = False
            self._session = self._opened(threads=None)
            return
        seconds = {images: self._seconds_of_image(inputs, images) for images in (_SMALL_PART, large)}
        self._part = min(seconds, key=lambda images: seconds[images])

    def _seconds_of_image(self, inputs: Mapping[str, Array], images: int) -> float:
        start = time.perf_counter()
        self._session.run(_images(inputs, 0, images))
        return (time.perf_counter() - start) / images


def _images(inputs: Mapping[str, Array], start: int, images: int) -> dict[str, Array]:
    return {name: array[start : start + images] if array.ndim else array for name, array in inputs.items()}


def _axis(arrays: Sequence[Any]) -> int | None:
    """The axis along which parts of an output make up the first array, to the bit; None where there is none."""
    together, *apart = arrays
    if not all(isinstance(array, np.ndarray) and array.dtype == together.dtype for array in arrays):
        return None
    for axis in range(together.ndim):
        rest = [array.shape[:axis] + array.shape[axis + 1 :] for array in arrays]
        joins = all(array.ndim == together.ndim for array in apart) and len(set(rest)) == 1
        joins = joins and sum(array.shape[axis] for array in apart) == together.shape[axis]
        if joins and np.array_equal(np.concatenate(apart, axis), together, equal_nan=together.dtype.kind == "f"):
            return axis
    return None
