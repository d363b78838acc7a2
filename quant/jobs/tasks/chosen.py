"""What a model is for, and what that means for a run; and what its outputs are asked to find that out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from datasets import Batch
from quant.backend import Runnable
from quant.calibration.preprocessing_choice import metadata_of
from quant.calibration.run_data import RunData
from quant.evaluation.outputs import OutputReader
from quant.evaluation.recorder import Recorder
from quant.onnx_graph.metadata import ModelMetadata
from quant.onnx_graph.model import ModelInterface, OnnxModel
from quant.onnx_graph.tracing import outputs_after
from quant.progress import Console
from quant.settings.run_settings import RunSettings
from quant.tasks.detection.heads import Head


def _nothing() -> Recorder | None:
    return None


@dataclass(frozen=True)
class ChosenTask:
    """What a model is for, and what that means for a run.

    Attributes:
        name: The task, as `--task` calls it.
        reader: How outputs are read and compared.
        recorder: What scores the builds: the user's metric, or the task; None where top-1 does or nothing can.
        head: The detector's head; None where it is none.
        float_nodes: Products that stay float in INT8.
        text: How it was found, for people.
        texts: What labels stand for that are no classes of the model, for a metric; None where they are classes.
        fresh: Makes another recorder of the task, without scores; None as `recorder` is.
    """

    name: str
    reader: OutputReader
    recorder: Recorder | None
    head: Head | None = None
    float_nodes: frozenset[str] = frozenset()
    text: str = ""
    texts: tuple[str, ...] | None = None
    fresh: Callable[[], Recorder | None] = field(default=_nothing)

    def with_float(self, nodes: frozenset[str]) -> ChosenTask:
        """The task with more products that stay float."""
        return replace(self, float_nodes=self.float_nodes | nodes)


@dataclass(frozen=True)
class Asked:
    """All that a task is found from.

    Attributes:
        model: The baseline.
        baseline: Runs it.
        batch: The first batch of the evaluation.
        data: The images.
        settings: The task that was asked for.
        reader: How outputs are read; with class scores where an output answers them.
        console: Where findings are said.
    """

    model: ModelInterface
    baseline: Runnable
    batch: Batch
    data: RunData
    settings: RunSettings
    reader: OutputReader
    console: Console

    @cached_property
    def outputs(self) -> list[NDArray[Any]]:
        """Of the batch."""
        return list(self.baseline.run(self.batch.inputs))

    @property
    def images(self) -> int:
        """How many images the batch has."""
        return len(self.batch.names)

    @cached_property
    def metadata(self) -> ModelMetadata:
        """What the model's file says."""
        return metadata_of(self.model)

    @cached_property
    def after_sigmoid(self) -> frozenset[str]:
        """Names of outputs that a Sigmoid gives."""
        return outputs_after(self.model.graph, "Sigmoid") if isinstance(self.model, OnnxModel) else frozenset()

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes in the model's order, as the labels have them where the user says so, else as the file does."""
        names = self.metadata.names
        own = self.data.eval_source.class_names
        return own if own is not None and (self.settings.classes is not None or names is None) else names

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the model's input; 1 and 1 where it takes no images."""
        preprocessing = self.data.preprocessing
        if preprocessing is not None and preprocessing.size is not None:
            return preprocessing.size
        array = self.batch.inputs.get(self.data.input_name)
        if array is None or array.ndim != 4:
            return 1, 1
        sides = array.shape[2:] if array.shape[1] in (1, 3, 4) else array.shape[1:3]
        return int(sides[0]), int(sides[1])

    def outputs_text(self) -> str:
        """The outputs with their shapes, for errors."""
        return ", ".join(f"'{info.name}' {_shape(info.shape)}" for info in self.model.outputs)


def _shape(shape: tuple[int | str | None, ...]) -> str:
    return f"[{', '.join('?' if side is None else str(side) for side in shape)}]"
