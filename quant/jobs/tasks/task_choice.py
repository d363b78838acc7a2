"""What a model is for: found from labels, its outputs and its metadata, unless the user says it."""

from __future__ import annotations

from dataclasses import replace

from datasets import Batch
from datasets.source import MaskSource
from quant.backend import Runnable
from quant.calibration.run_data import RunData
from quant.evaluation.outputs import OutputReader
from quant.evaluation.recorder import Recorder
from quant.jobs.measurement import output_reader
from quant.jobs.tasks.chosen import Asked, ChosenTask
from quant.jobs.tasks.detection_choice import check_boxes, detection_task
from quant.jobs.tasks.segmentation_choice import check_masks, segmentation_task
from quant.onnx_graph.model import ModelInterface
from quant.progress import Console
from quant.settings.run_settings import RunSettings
from quant.tasks.drawn_recorder import DrawnRecorder

__all__ = ["ChosenTask", "chosen_task", "usable_recorder"]

_UNSCORED = ("detect", "segment", "embed")  # no output of theirs answers which class an image shows


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
    reader = output_reader(model, baseline, batch, data, settings, console, unscored=settings.task in _UNSCORED)
    asked = Asked(model, baseline, batch, data, settings, reader, console)
    found = _found(asked)
    if found is None:
        check_boxes(asked)
        check_masks(asked)
        name = settings.task if settings.task != "auto" else "classify" if reader.scores is not None else "none"
        console.note(_told(name, reader, model, labelled=_answers(asked), found=settings.task == "auto"))
        return ChosenTask(name, reader, metric)
    console.note(f"task: {found.name} ({found.text})")
    return found if metric is None else replace(found, recorder=metric, fresh=lambda: None)


def _found(asked: Asked) -> ChosenTask | None:
    """The first task that fits: what the labels are of, then what the outputs look like."""
    wanted = asked.settings.task
    if _answers(asked) and wanted != "detect":
        return None
    finders = {"detect": detection_task, "segment": segmentation_task}
    if isinstance(asked.data.eval_source, MaskSource):
        finders = {"segment": segmentation_task, "detect": detection_task}
    for name, find in finders.items():
        if wanted in ("auto", "none", name):
            found = find(asked)
            if found is not None:
                return found
    return None


def _answers(asked: Asked) -> bool:
    """Do labels judge an output's classes?"""
    return asked.reader.scores is not None and asked.data.eval_source.labels is not None


def usable_recorder(task: ChosenTask, console: Console) -> Recorder | None:
    """The task's recorder after the evaluation; None, with a warning, where the images show nothing to score."""
    if isinstance(task.recorder, DrawnRecorder):
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
