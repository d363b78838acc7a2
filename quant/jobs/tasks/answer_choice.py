"""Embeddings, numbers, keypoints, several labels, pictures: which does a model answer, and how is that scored?"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.source import ImageSource
from quant.errors import QuantError
from quant.evaluation.outputs import OutputReader
from quant.jobs.tasks.chosen import Asked, ChosenTask
from quant.tasks.pictures.recorder import PictureRecorder, picture_head_from_outputs
from quant.tasks.scored import ScoredRecorder
from quant.tasks.vectors.embedding import EmbeddingRecorder
from quant.tasks.vectors.evidence import is_embedding
from quant.tasks.vectors.keypoints import KeypointRecorder, point_head_from_outputs
from quant.tasks.vectors.multilabel import MultilabelRecorder
from quant.tasks.vectors.regression import RegressionRecorder
from quant.tasks.vectors.vector_head import VectorHead, vector_heads

_COORDINATE = re.compile(r"(^|[_\W\d])[xy]\d*([_\W]|$)", re.IGNORECASE)  # x, y, x1, nose_x


def multilabel_task(asked: Asked) -> ChosenTask | None:
    """Several labels an image: a column of 0 and 1 for each, or probabilities of which any number may be high."""
    labels = asked.data.eval_source.labels
    labelled = labels is not None and labels.ndim == 2 and labels.dtype.kind == "i"
    wanted = asked.settings.task == "multilabel"
    width = labels.shape[1] if labelled and labels is not None else None
    for head in vector_heads(asked.reader.layouts, asked.outputs):
        values = head.vectors(asked.outputs)
        within = bool(((values >= 0) & (values <= 1)).all())
        apart = within and head.width > 1 and not (np.abs(values.sum(axis=1) - 1) < 1e-2).all()
        fits = head.width == width if labelled else wanted or (apart and head.name in asked.after_sigmoid)
        if fits and head.width > 1:
            return _multilabel(asked, head, labelled=labelled, probabilities=within)
    return None


def _multilabel(asked: Asked, head: VectorHead, *, labelled: bool, probabilities: bool) -> ChosenTask:
    names = asked.class_names
    return _task(
        "multilabel",
        asked,
        head.output,
        lambda: MultilabelRecorder(head, labelled=labelled, probabilities=probabilities, names=names),
    )


def keypoints_task(asked: Asked) -> ChosenTask | None:
    """Keypoints: columns of coordinates, or what the user says."""
    labels = _numbers(asked, columns=True)
    columns = getattr(asked.data.eval_source, "columns", ())
    wanted = asked.settings.task == "keypoints"
    are_points = bool(columns) and all(_COORDINATE.search(name) for name in columns)
    if not wanted and not (labels is not None and are_points):
        return None
    if labels is not None and labels.shape[1] % 2:
        if wanted:
            raise QuantError(
                f"{asked.data.eval_source.path}: expected x and y of each point, found {labels.shape[1]} numbers an "
                "image"
            )
        return None
    points = None if labels is None else labels.shape[1] // 2
    head = point_head_from_outputs(asked.reader.layouts, asked.outputs, points)
    if head is None:
        return None
    evaluated = None if labels is None else labels[asked.data.eval_selection]
    return _task(
        "keypoints",
        asked,
        head.output,
        lambda: KeypointRecorder(head, evaluated, asked.data.preprocessing, asked.input_size),
    )


def regression_task(asked: Asked) -> ChosenTask | None:
    """Numbers an image: as many as the labels have, or what the user says."""
    labels = _numbers(asked)
    if labels is None and asked.settings.task != "regress":
        return None
    heads = vector_heads(asked.reader.layouts, asked.outputs)
    width = None if labels is None else 1 if labels.ndim == 1 else labels.shape[1]
    head = next((each for each in heads if width in (None, each.width)), None)
    if head is None:
        return None
    evaluated = None if labels is None else labels[asked.data.eval_selection]
    columns = getattr(asked.data.eval_source, "columns", None)
    return _task("regress", asked, head.output, lambda: RegressionRecorder(head, evaluated, columns))


def embedding_task(asked: Asked) -> ChosenTask | None:
    """Embeddings: vectors of length one, what their output's name says, or what the user says."""
    heads = vector_heads(asked.reader.layouts, asked.outputs)
    likely = [head for head in heads if is_embedding(head.name, head.vectors(asked.outputs))]
    if asked.settings.task == "embed":
        chosen = (likely or sorted(heads, key=lambda head: -head.width))[:1]
    else:
        chosen = likely[:1] if len(heads) == 1 else []  # features beside logits are no embedding of their own
    if not chosen or chosen[0].width < 2:
        return None
    head: VectorHead = chosen[0]
    labels = asked.data.eval_source.labels
    identities = labels if labels is not None and labels.ndim == 1 and labels.dtype.kind == "i" else None
    return _task("embed", asked, head.output, lambda: EmbeddingRecorder(head, identities, asked.data.eval_selection))


def picture_task(asked: Asked) -> ChosenTask | None:
    """Pictures: what looks like the input, or what the user says."""
    preprocessing = asked.data.preprocessing
    inputs: NDArray[Any] | None = asked.batch.inputs.get(asked.data.input_name)
    if not isinstance(asked.data.eval_source, ImageSource) or inputs is None or inputs.ndim != 4:
        inputs = None
    elif getattr(preprocessing, "layout", "") == "nhwc":
        inputs = np.moveaxis(inputs, 3, 1)
    certain = asked.settings.task == "image"
    head = picture_head_from_outputs(asked.reader.layouts, asked.outputs, inputs, certain=certain)
    return None if head is None else _task("image", asked, head.output, lambda: PictureRecorder(head))


def check_answers(asked: Asked) -> None:
    """Raise where a task was asked for whose answers no output gives.

    Raises:
        QuantError: It was; the message says what was expected.
    """
    expected = {
        "embed": "a vector an image [N, D]",
        "multilabel": "a score for each label [N, C]",
        "regress": "as many numbers an image as the labels have [N, K]",
        "keypoints": "points [N, 2 K], [N, K, 2], [N, K, 3] or maps [N, K, h, w], as many as the labels have",
        "image": "pictures [N, 1, H, W] or [N, 3, H, W]",
    }.get(asked.settings.task)
    if expected is not None and asked.settings.metric is None:
        raise QuantError(
            f"{asked.model.path}: expected {expected}, found {asked.outputs_text()}; score others with a metric of "
            "your own (--metric)"
        )


def _task(name: str, asked: Asked, output: int, fresh: Callable[[], ScoredRecorder]) -> ChosenTask:
    recorder = fresh()
    reader = OutputReader(asked.reader.layouts, answer=output)
    return ChosenTask(name, reader, recorder, text=recorder.text, fresh=fresh)


def _numbers(asked: Asked, *, columns: bool = False) -> NDArray[np.float64] | None:
    """Labels that are numbers and no classes; None where there are none.

    Whole numbers without names are classes, but where the only output is a single number that is no probability of one
    of two.
    """
    labels = asked.data.eval_source.labels
    if labels is None or (columns and labels.ndim != 2):
        return None
    if labels.dtype.kind == "f":
        return np.asarray(labels, np.float64)
    if labels.dtype.kind != "i" or (asked.data.eval_source.class_names is not None and labels.ndim == 1):
        return None
    asked_for = asked.settings.task in ("regress", "keypoints")
    single = all(head.width == 1 for head in vector_heads(asked.reader.layouts, asked.outputs))
    return np.asarray(labels, np.float64) if asked_for or (labels.ndim == 1 and single and labels.max() > 1) else None
