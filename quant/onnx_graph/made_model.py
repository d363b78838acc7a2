"""A model that was made from another: kept while it is small or in use, and made again when it is needed later."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import onnx

from quant.onnx_graph.light_model import LightModel
from quant.onnx_graph.model_file import bytes_of_model

_KEPT = 1 << 26  # bytes of weights that are kept between uses


class MadeModel:
    """A model that is made when it is needed.

    Attributes:
        graph: The model without the values of its large weights.
        values: How many values these have.
        bytes: Size of its file, or of both its files.
    """

    def __init__(self, make: Callable[[], LightModel], name: str) -> None:
        """Make the model once, so that what is wrong with it is known.

        Args:
            make: Makes it, the same each time.
            name: Of its file.
        """
        self._make = make
        self._kept: LightModel | None = make()
        self._last = weakref.ref(self._kept)
        self.graph: onnx.ModelProto = self._kept.proto
        self.values = self._kept.values
        self.bytes = bytes_of_model(self._kept, name)
        self._is_large = self._kept.bytes_of_weights > _KEPT

    def model(self) -> LightModel:
        """The model; made again if it was forgotten and nothing uses it."""
        made = self._kept or self._last()
        if made is None:
            made = self._make()
            self._last = weakref.ref(made)
        return made

    def forget(self) -> None:
        """Leave a large model to those who use it, such as sessions; without any, its memory is free."""
        if self._is_large:
            self._kept = None
