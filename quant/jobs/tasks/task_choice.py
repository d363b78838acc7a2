"""What a model is for: found from labels, its outputs and its metadata, unless the user says it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from datasets import Batch
from datasets.source import MaskSource
from quant.backend import Runnable
from quant.calibration.run_data import RunData
from quant.evaluation.metric import MetricRecorder
from quant.evaluation.outputs import OutputReader
from quant.evaluation.recorder import Recorder
from quant.jobs.measurement import read_outputs, say_of_labels
from quant.jobs.tasks.answer_choice import (
    check_answers,
    embedding_task,
    keypoints_task,
    multilabel_task,
    picture_task,
    regression_task,
)
from quant.jobs.tasks.chosen import Asked, ChosenTask
from quant.jobs.tasks.detection_choice import check_boxes, detection_task
from quant.jobs.tasks.segmentation_choice import check_masks, segmentation_task
from quant.onnx_graph.model import ModelInterface
from quant.progress import Console
from quant.settings.run_settings import RunSettings
from quant.tasks.drawn_recorder import DrawnRecorder
from quant.tasks.vectors.evidence import are_classes, are_of_length_one

__all__ = ["ChosenTask", "chosen_task", "usable_recorder"]

_OTHERS = ("detect", "segment", "embed", "multilabel", "regress", "keypoints", "image")  # whose labels are no classes


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
        QuantError: It is not what was asked for, or labels that were asked for fit no output.
    """
    reader, problem = read_outputs(model, baseline, batch, data, console)
    texts = data.eval_source.class_names if problem and settings.labels and not settings.classes else None
    if isinstance(metric, MetricRecorder):
        metric.texts = texts
    if settings.task in _OTHERS:
        reader = OutputReader(reader.layouts)
    asked = Asked(model, baseline, batch, data, settings, reader, console)
    found = _found(asked)
    if found is not None:
        console.note(f"task: {found.name} ({found.text})")
        return found if metric is None else replace(found, recorder=metric, texts=texts, fresh=lambda: None)
    check_boxes(asked)
    check_masks(asked)
    check_answers(asked)
    if settings.task not in _OTHERS:
        say_of_labels(problem, settings, console)
    doubt = _doubt(asked)
    if doubt:
        reader = OutputReader(reader.layouts)
    name = settings.task if settings.task != "auto" else "classify" if reader.scores is not None else "none"
    console.note(f"task: {name}{doubt or _how(name, asked)}")
    return ChosenTask(name, reader, metric, texts=texts)


def _found(asked: Asked) -> ChosenTask | None:
    """The first task that fits: what the labels are of, then what the outputs look like."""
    wanted = asked.settings.task
    if (_answers(asked) and wanted != "detect") or wanted == "classify":
        return None
    finders = {
        "multilabel": multilabel_task,
        "keypoints": keypoints_task,
        "regress": regression_task,
        "detect": detection_task,
        "image": picture_task,
        "segment": segmentation_task,
        "embed": embedding_task,
    }
    if isinstance(asked.data.eval_source, MaskSource):
        finders = {"segment": segmentation_task, **finders}
    for name, find in finders.items():
        if wanted in ("auto", "none", name):
            found = find(asked)
            if found is not None:
                return found
    return None


def _answers(asked: Asked) -> bool:
    """Do labels judge an output's classes? Not where it is an embedding of as many numbers as there are folders."""
    scores = asked.reader.scores
    if scores is None or asked.data.eval_source.labels is None:
        return False
    if scores.kind != "logits" or asked.settings.task == "classify":
        return True
    by_image = asked.reader.layouts[scores.output].by_image(asked.outputs[scores.output])
    return not are_of_length_one(by_image.reshape(len(by_image), -1).astype(np.float64))


def _doubt(asked: Asked) -> str:
    """Why an output that could be class scores is not taken for them, for people; empty where nothing speaks against.

    Without labels, names or probabilities, a vector may be anything, and the argmax of anything else says nothing.
    """
    scores, names = asked.reader.scores, asked.class_names
    if scores is None or _answers(asked) or asked.settings.task == "classify" or scores.kind != "logits":
        return ""
    if names is not None and len(names) == scores.classes:
        return ""
    layout = asked.reader.layouts[scores.output]
    by_image = layout.by_image(asked.outputs[scores.output])
    if are_classes(layout.name, by_image.reshape(len(by_image), -1).astype(np.float64)):
        return ""
    return f" (the numbers of output '{layout.name}' do not look like the scores of classes; --task says what they are)"


def usable_recorder(task: ChosenTask, console: Console) -> Recorder | None:
    """The task's recorder after the evaluation; None, with a warning, where the images show nothing to score."""
    if isinstance(task.recorder, DrawnRecorder):
        problem = task.recorder.problem()
        if problem:
            console.warn(problem)
            return None
    return task.recorder


def _how(name: str, asked: Asked) -> str:
    """How a task was found, for people."""
    scores = asked.reader.scores
    if name == "classify" and scores is not None:
        return f" (output '{asked.reader.layouts[scores.output].name}'{', labelled' if _answers(asked) else ''})"
    if asked.settings.task == "auto":
        return " (no output answers classes, boxes or anything else that could be told; --task says it)"
    return ""
