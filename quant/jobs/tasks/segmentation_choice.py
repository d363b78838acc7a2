"""Does it say which class each pixel is of, and how is that scored?"""

from __future__ import annotations

from dataclasses import replace

from datasets.source import MaskSource
from quant.errors import QuantError
from quant.evaluation.outputs import OutputReader
from quant.evaluation.recorder import Recorder
from quant.jobs.tasks.chosen import Asked, ChosenTask
from quant.tasks.segmentation.finding import MapEvidence, map_head_from_outputs
from quant.tasks.segmentation.map_head import MapHead
from quant.tasks.segmentation.recorder import SegmentationRecorder


def segmentation_task(asked: Asked) -> ChosenTask | None:
    """The task of segmentation; None where no output is a map of classes.

    Raises:
        QuantError: Masks do not fit the model.
    """
    source, names = asked.data.eval_source, asked.class_names
    certain = asked.settings.task == "segment" or isinstance(source, MaskSource)
    head = map_head_from_outputs(
        MapEvidence(
            asked.reader.layouts,
            asked.outputs,
            asked.input_size,
            certain,
            len(names) if names is not None else None,
            asked.after_sigmoid,
        )
    )
    if head is None:
        return None
    if names is not None and head.classes is not None and len(names) != head.classes:
        if asked.settings.classes is not None:
            raise QuantError(
                f"{asked.settings.classes}: expected the names of the {head.classes} classes that the model has, found "
                f"{len(names)}"
            )
        names = None

    def fresh() -> Recorder:
        return SegmentationRecorder(
            head,
            source,
            asked.data.preprocessing,
            asked.input_size,
            names,
            asked.settings.ignore_index,
        )

    recorder = fresh()
    if isinstance(recorder, SegmentationRecorder) and recorder.truth_text:
        asked.console.note(recorder.truth_text)
    return ChosenTask("segment", _reader(asked, head), recorder, text=head.text, fresh=fresh)


def check_masks(asked: Asked) -> None:
    """Say where masks were given or segmentation asked for, and no output is a map of classes.

    Raises:
        QuantError: Segmentation was asked for.
    """
    has_masks = isinstance(asked.data.eval_source, MaskSource)
    if asked.settings.task != "segment" and not has_masks:
        return
    size = asked.input_size
    problem = (
        f"{asked.model.path}: expected a map of classes over the input of {size[0]} x {size[1]} pixels (scores "
        f"[N, C, H, W] or numbers [N, H, W]), found {asked.outputs_text()}"
    )
    if asked.metadata.task == "segment":
        problem += "; masks of instances come with boxes, which --task detect scores"
    if asked.settings.task == "segment":
        raise QuantError(f"{problem}; score others with a metric of your own (--metric)")
    if asked.settings.metric is None:
        asked.console.warn(f"{problem}; the masks are not used, a metric of your own can (--metric)")


def _reader(asked: Asked, head: MapHead) -> OutputReader:
    """How outputs are compared: class numbers are not, value by value."""
    layouts = list(asked.reader.layouts)
    if head.kind == "numbers":
        layouts[head.output] = replace(layouts[head.output], judged=False)
    return OutputReader(tuple(layouts), answer=head.output)
