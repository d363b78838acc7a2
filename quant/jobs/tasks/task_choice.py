"""What a model is for: found from labels, its outputs and its metadata, unless the user says it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from datasets import Batch
from datasets.source import BoxSource
from quant.backend import Runnable
from quant.calibration.preprocessing_choice import AUTO, metadata_of
from quant.calibration.run_data import RunData
from quant.errors import QuantError
from quant.evaluation.outputs import OutputReader
from quant.evaluation.recorder import Recorder
from quant.jobs.measurement import output_reader
from quant.onnx_graph.model import ModelInterface, OnnxModel
from quant.progress import Console
from quant.qdq.output_head import head_nodes
from quant.settings.run_settings import RunSettings
from quant.tasks.detection.finding import Evidence, head_from_outputs
from quant.tasks.detection.heads import Head
from quant.tasks.detection.recorder import DetectionRecorder

_UNSCORED = ("detect", "segment", "embed")  # no output of theirs answers which class an image shows


@dataclass(frozen=True)
class ChosenTask:
    """What a model is for, and what that means for a run.

    Attributes:
        name: classify, detect, segment, embed, or none.
        reader: How outputs are read and compared.
        recorder: What scores the builds: the user's metric, or detections; None where top-1 does or nothing can.
        head: The detector's head; None where it is none.
        float_nodes: Products that stay float in INT8.
    """

    name: str
    reader: OutputReader
    recorder: Recorder | None
    head: Head | None = None
    float_nodes: frozenset[str] = frozenset()

    def with_float(self, nodes: frozenset[str]) -> ChosenTask:
        """The task with more products that stay float."""
        return replace(self, float_nodes=self.float_nodes | nodes)


def chosen_task(
    model: ModelInterface,
    baseline: Runnable,
    batch: Batch,
    data: RunData,
    settings: RunSettings,
    console: Console,
    metric: Recorder | None = None,
) -> ChosenTask:
    """Find out what a model is for, and say it.

    Args:
        model: The baseline.
        baseline: Runs it.
        batch: The first batch of the evaluation.
        data: The images.
        settings: The task that was asked for, the head's precision.
        console: Where the finding is said, and what is left out.
        metric: The user's own, which scores the builds whatever the task is; None without one.

    Raises:
        QuantError: It is no detector as was asked for, or labels that were asked for fit no output.
    """
    reader = output_reader(model, baseline, batch, data, settings, console, unscored=settings.task in _UNSCORED)
    answers = reader.scores is not None and data.eval_source.labels is not None
    head = None
    if settings.task in ("auto", "detect", "none") and not answers:
        head = _head(model, baseline, batch, data, settings)
    if head is None:
        _check_boxes(model, data, settings, console)
        name = settings.task if settings.task != "auto" else "classify" if reader.scores is not None else "none"
        console.note(_told(name, reader, model, labelled=answers, found=settings.task == "auto"))
        return ChosenTask(name, reader, metric)
    console.note(f"task: detect ({head.text})")
    if settings.preprocess == AUTO and data.preprocessing is not None and data.preprocessing.resize != "letterbox":
        console.warn(
            f"{model.path}: nothing says how images become its inputs, so they do as for {data.preprocessing.name}; "
            "detectors usually take --preprocess yolo"
        )
    recorder = metric if metric is not None else _recorder(head, model, batch, data, settings)
    nodes = head_nodes(model.light, in_int8=settings.head == "int8") if isinstance(model, OnnxModel) else frozenset()
    return ChosenTask("detect", OutputReader(reader.layouts), recorder, head, nodes)


def usable_recorder(task: ChosenTask, console: Console) -> Recorder | None:
    """The task's recorder after the evaluation; None, with a warning, where the images show nothing to score."""
    if isinstance(task.recorder, DetectionRecorder):
        problem = task.recorder.problem()
        if problem:
            console.warn(problem)
            return None
    return task.recorder


def _told(name: str, reader: OutputReader, model: ModelInterface, *, labelled: bool, found: bool) -> str:
    how = ""
    if name == "classify" and reader.scores is not None:
        how = f" (output '{reader.layouts[reader.scores.output].name}'{', labelled' if labelled else ''})"
    elif found:
        how = " (no output answers classes or boxes that could be told; --task says it)"
    return f"task: {name}{how}"


def _input_size(batch: Batch, data: RunData) -> tuple[int, int]:
    """Height and width of the model's input."""
    if data.preprocessing is not None and data.preprocessing.size is not None:
        return data.preprocessing.size
    array = batch.inputs.get(data.input_name)
    if array is None or array.ndim != 4:
        return 1, 1  # no images
    sides = array.shape[2:] if array.shape[1] in (1, 3, 4) else array.shape[1:3]
    return int(sides[0]), int(sides[1])


def _head(model: ModelInterface, baseline: Runnable, batch: Batch, data: RunData, settings: RunSettings) -> Head | None:
    source, metadata = data.eval_source, metadata_of(model)
    has_boxes = isinstance(source, BoxSource)
    names = source.class_names if has_boxes else None
    outputs = baseline.run(batch.inputs)
    infos = model.outputs
    return head_from_outputs(
        Evidence(
            [infos[i].name if i < len(infos) else f"#{i}" for i in range(len(outputs))],
            outputs,
            len(batch.names),
            _input_size(batch, data),
            metadata,
            len(names) if names is not None else None,
            certain=settings.task == "detect" or has_boxes,
        )
    )


def _recorder(
    head: Head, model: ModelInterface, batch: Batch, data: RunData, settings: RunSettings
) -> DetectionRecorder:
    source, names = data.eval_source, metadata_of(model).names
    if isinstance(source, BoxSource) and (settings.classes is not None or names is None):
        names = source.class_names
    return DetectionRecorder(head, source, data.preprocessing, _input_size(batch, data), names)


def _check_boxes(model: ModelInterface, data: RunData, settings: RunSettings, console: Console) -> None:
    """Say where boxes were given or detection asked for, and the outputs are those of no known detector."""
    has_boxes = isinstance(data.eval_source, BoxSource)
    if settings.task != "detect" and not has_boxes:
        return
    shown = ", ".join(f"'{info.name}' {_shape(info.shape)}" for info in model.outputs)
    problem = (
        f"{model.path}: expected the outputs of a detector (boxes and scores in one output or several, raw levels, or "
        f"final detections), found {shown}"
    )
    if settings.task == "detect":
        raise QuantError(f"{problem}; score them with a metric of your own (--metric)")
    if settings.metric is None:
        console.warn(f"{problem}; the boxes of the labels are not used, a metric of your own can (--metric)")


def _shape(shape: tuple[int | str | None, ...]) -> str:
    return f"[{', '.join('?' if side is None else str(side) for side in shape)}]"
