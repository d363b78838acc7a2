"""Is it a detector, and how is it scored?"""

from __future__ import annotations

from datasets.source import BoxSource
from quant.calibration.preprocessing_choice import AUTO
from quant.errors import QuantError
from quant.evaluation.outputs import OutputReader
from quant.evaluation.recorder import Recorder
from quant.jobs.tasks.chosen import Asked, ChosenTask
from quant.onnx_graph.model import OnnxModel
from quant.qdq.output_head import head_nodes
from quant.tasks.detection.finding import Evidence, head_from_outputs
from quant.tasks.detection.heads import Head
from quant.tasks.detection.recorder import DetectionRecorder
from quant.tasks.detection.undecoded import undecoded


def detection_task(asked: Asked) -> ChosenTask | None:
    """The task of a detector; None where the outputs are those of no known one.

    Raises:
        QuantError: The classes of the labels are not those of the model.
    """
    head = head_from_outputs(_evidence(asked))
    if head is None:
        return None
    data, model, settings = asked.data, asked.model, asked.settings
    if settings.preprocess == AUTO and data.preprocessing is not None and data.preprocessing.resize != "letterbox":
        asked.console.warn(
            f"{model.path}: nothing says how images become its inputs, so they do as for {data.preprocessing.name}; "
            "detectors usually take --preprocess yolo"
        )
    nodes = head_nodes(model.light, in_int8=settings.head == "int8") if isinstance(model, OnnxModel) else frozenset()

    def fresh() -> Recorder:
        return _recorder(head, asked)

    reader = OutputReader(asked.reader.layouts)
    return ChosenTask("detect", reader, fresh(), head, nodes, head.text, fresh=fresh)


def check_boxes(asked: Asked) -> None:
    """Say where boxes were given or detection asked for, and the outputs are those of no known detector.

    Raises:
        QuantError: Detection was asked for.
    """
    has_boxes = isinstance(asked.data.eval_source, BoxSource)
    reason = undecoded(_evidence(asked)) if asked.settings.task in ("auto", "detect", "none") else ""
    if asked.settings.task != "detect" and not has_boxes:
        if reason and asked.settings.metric is None:
            asked.console.warn(f"{asked.model.path}: {reason}; a metric of your own can score them (--metric)")
        return
    problem = (
        f"{asked.model.path}: {reason}, found {asked.outputs_text()}"
        if reason
        else (
            f"{asked.model.path}: expected the outputs of a detector (boxes and scores in one output or several, raw "
            f"levels, or final detections), found {asked.outputs_text()}"
        )
    )
    if asked.settings.task == "detect":
        raise QuantError(f"{problem}; score them with a metric of your own (--metric)")
    if asked.settings.metric is None:
        asked.console.warn(f"{problem}; the boxes of the labels are not used, a metric of your own can (--metric)")


def _evidence(asked: Asked) -> Evidence:
    source = asked.data.eval_source
    has_boxes = isinstance(source, BoxSource)
    names = source.class_names if has_boxes else None
    infos = asked.model.outputs
    return Evidence(
        [infos[i].name if i < len(infos) else f"#{i}" for i in range(len(asked.outputs))],
        asked.outputs,
        asked.images,
        asked.input_size,
        asked.metadata,
        len(names) if names is not None else None,
        certain=asked.settings.task == "detect" or has_boxes,
    )


def _recorder(head: Head, asked: Asked) -> DetectionRecorder:
    source, names = asked.data.eval_source, asked.metadata.names
    if isinstance(source, BoxSource) and (asked.settings.classes is not None or names is None):
        names = source.class_names
    return DetectionRecorder(head, source, asked.data.preprocessing, asked.input_size, names)
