"""What exporters leave in an ONNX file about a detector: its task, classes, input size and strides."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx


@dataclass(frozen=True)
class ModelMetadata:
    """What the file says; None where it does not.

    Attributes:
        task: Such as detect, segment, classify, pose, obb.
        names: Class names by index.
        size: Height and width of the input.
        stride: Largest stride, pixels.
        keypoints: How many numbers the keypoints of a detection have.
    """

    task: str | None = None
    names: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None
    stride: int | None = None
    keypoints: int = 0

    @property
    def told(self) -> list[str]:
        """What was found, for people."""
        found = []
        if self.names is not None:
            found.append(f"{len(self.names)} class names")
        if self.size is not None:
            found.append(f"size {self.size[0]}x{self.size[1]}")
        if self.task is not None:
            found.append(f"task {self.task}")
        if self.stride is not None:
            found.append(f"stride {self.stride}")
        return found


def metadata_from_model(proto: onnx.ModelProto) -> ModelMetadata:
    """Read `task`, `names`, `imgsz`, `stride` and `kpt_shape`; what is not in the usual form is left out."""
    values = {entry.key: _value(entry.value) for entry in proto.metadata_props}
    return metadata_from_values(values)


def metadata_from_values(values: Mapping[str, Any]) -> ModelMetadata:
    """The same, out of values by key."""
    task, shape = values.get("task"), _whole_numbers(values.get("kpt_shape"), 2)
    sizes, strides = _whole_numbers(values.get("imgsz"), 2), _whole_numbers(values.get("stride"), 1)
    return ModelMetadata(
        task=task if isinstance(task, str) and task else None,
        names=_names(values.get("names")),
        size=(sizes[0], sizes[1]) if sizes else None,
        stride=strides[0] if strides else None,
        keypoints=shape[0] * shape[1] if shape else 0,
    )


def _value(text: str) -> Any:  # noqa: ANN401 - any literal
    """A Python or JSON literal, which is how exporters write anything but text; else the text."""
    for parse in (ast.literal_eval, json.loads):
        try:
            return parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return text.strip()


def _names(value: Any) -> tuple[str, ...] | None:  # noqa: ANN401
    """Names out of a list, or out of a table by index without gaps."""
    if isinstance(value, Mapping):
        table = {str(key): name for key, name in value.items()}
        keys = [str(i) for i in range(len(table))]
        value = [table[key] for key in keys] if table.keys() == set(keys) else None
    if isinstance(value, list | tuple) and value and all(isinstance(name, str | int) for name in value):
        return tuple(str(name) for name in value)
    return None


def _whole_numbers(value: Any, count: int) -> list[int] | None:  # noqa: ANN401
    """So many whole numbers above 0, out of a list or out of one number for all; None where they are not that."""
    values = list(value) if isinstance(value, list | tuple) else [value] * count
    fit = len(values) == count and all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values)
    return values if fit else None
