"""How a model's outputs are read: which axis holds the images, which output holds class scores, what is left out.

Models give more than logits: detections whose number depends on the images, scalars, texts, sequences, time before the
images. What can be compared is compared, and everything else is named with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.magnitudes import groups_by_magnitude
from quant.onnx_graph.model import TensorInfo

Array = NDArray[Any]
Kind = Literal["logits", "probabilities", "logit", "probability", "label"]

_SUMS_TO_ONE = 1e-3  # how far the sum of probabilities may be from 1: FP16 builds round


@dataclass(frozen=True)
class OutputLayout:
    """How one output is read.

    Attributes:
        name: Its name.
        axis: The axis that holds the images; None where the output is not compared.
        left_out: Why it is not compared; empty where it is.
        judged: Does its SQNR tell anything? That of class numbers does not: 3 is no larger mistake for 1 than 2 is.
    """

    name: str
    axis: int | None
    left_out: str = ""
    judged: bool = True

    def by_image(self, array: Array) -> Array:
        """The output with the images first."""
        return np.moveaxis(array, self.axis or 0, 0)


@dataclass(frozen=True)
class ClassScores:
    """The output that answers which class an image shows.

    Attributes:
        output: Its place among the outputs.
        kind: logits or probabilities of all classes; a single logit or probability of the second of two classes; or the
            number of the class itself.
        classes: How many classes there are; None for the number of a class, which does not tell.
    """

    output: int
    kind: Kind
    classes: int | None

    def logits(self, by_image: Array) -> NDArray[np.float64]:
        """Logits [images, classes] of an output with the images first; of probabilities their logarithms."""
        values: NDArray[np.float64] = by_image.astype(np.float64).reshape(len(by_image), -1)
        if self.kind == "logit":
            return np.concatenate([np.zeros_like(values), values], axis=1)
        if self.kind == "probability":
            values = np.concatenate([1 - values, values], axis=1)
        if self.kind in ("probability", "probabilities"):
            values = np.log(np.maximum(values, np.finfo(np.float32).tiny))
        return values

    def answers(self, by_image: Array) -> NDArray[np.int64]:
        """The class of each image, of an output with the images first."""
        if self.kind == "label":
            return by_image.reshape(len(by_image)).astype(np.int64)
        answers: NDArray[np.int64] = self.logits(by_image).argmax(axis=1).astype(np.int64)
        return answers


@dataclass(frozen=True)
class OutputReader:
    """How the outputs of a model and of all its builds are read.

    Attributes:
        layouts: Of the outputs, in order.
        scores: Where classes are answered; None where no output does.
        answer: Place of the output that another task reads; None where none does.
        notes: What a user should know of outputs that are not compared, a line each.
    """

    layouts: tuple[OutputLayout, ...]
    scores: ClassScores | None = None
    answer: int | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Outputs that are not compared, a line each."""
        return tuple(
            f"output '{layout.name}' is not compared: {layout.left_out}" for layout in self.layouts if layout.left_out
        )

    @property
    def compared(self) -> tuple[int, ...]:
        """Places of the outputs that are compared value by value."""
        return tuple(i for i, layout in enumerate(self.layouts) if layout.axis is not None and layout.judged)

    @property
    def readable(self) -> tuple[int, ...]:
        """Places of the outputs whose axis of images is known."""
        return tuple(i for i, layout in enumerate(self.layouts) if layout.axis is not None)


def layouts_from_runs(
    infos: Sequence[TensorInfo], whole: Sequence[Any], size: int, part: Sequence[Any], part_size: int
) -> tuple[OutputLayout, ...]:
    """Read the layout of each output from two runs on batches of different sizes.

    An axis that is as long as the batch in both runs holds the images. Where the sizes are the same (a single image),
    the first axis of that length does.

    Args:
        infos: Names, and declared shapes.
        whole: Outputs of a batch.
        size: Images in that batch.
        part: Outputs of a part of it.
        part_size: Images in that part.
    """
    return tuple(_layout(info, a, size, b, part_size) for info, a, b in zip(infos, whole, part, strict=True))


def _layout(info: TensorInfo, whole: Any, size: int, part: Any, part_size: int) -> OutputLayout:  # noqa: ANN401 - sequences too
    if not (isinstance(whole, np.ndarray) and isinstance(part, np.ndarray)):
        return OutputLayout(info.name, None, "it is a sequence or a map")
    if whole.dtype.kind not in "fiub":
        return OutputLayout(info.name, None, "it holds texts")
    if not whole.ndim:
        return OutputLayout(info.name, None, "it is a single number, not one an image")
    if whole.ndim != part.ndim:
        return OutputLayout(info.name, None, "its number of axes depends on the images")
    fits = [i for i, (a, b) in enumerate(zip(whole.shape, part.shape, strict=True)) if (a, b) == (size, part_size)]
    others = [i for i in range(whole.ndim) if i not in fits[:1] and whole.shape[i] != part.shape[i]]
    if not fits or others:
        return OutputLayout(info.name, None, f"its size depends on the images ({list(whole.shape)} for {size} of them)")
    return OutputLayout(info.name, fits[0])


def class_scores(
    layouts: Sequence[OutputLayout],
    outputs: Sequence[Any],
    classes: int | None = None,
    *,
    labelled: bool = False,
    after_sigmoid: frozenset[str] = frozenset(),
) -> ClassScores | None:
    """The output that answers classes; None where no output does, or where several might and labels do not tell.

    Args:
        layouts: Of the outputs.
        outputs: The baseline's, of some images.
        classes: How many classes the labels have; None where that is not known.
        labelled: Are there labels? Only then does an output count that is no vector of scores: the number of a class,
            or one score for two classes. Without, a vector whose channels are of several magnitudes is none.
        after_sigmoid: Names of outputs that a Sigmoid gives.
    """
    found = []
    for place, (layout, output) in enumerate(zip(layouts, outputs, strict=True)):
        if layout.axis is None:
            continue
        score = _scores(place, layout, output, after_sigmoid, labelled=labelled)
        if score is not None:
            found.append(score)
    if labelled and classes is not None:
        fitting = [score for score in found if score.classes in (None, classes)]
        vectors = [score for score in fitting if score.classes is not None]
        return next(iter(vectors or fitting), None)
    vectors = [score for score in found if score.kind in ("logits", "probabilities")]
    if len(layouts) != 1 or not vectors:
        return None
    by_image = layouts[0].by_image(outputs[0])
    return vectors[0] if vectors[0].kind == "probabilities" or _is_of_one_magnitude(by_image) else None


def _is_of_one_magnitude(by_image: Array) -> bool:
    """Logits are; a box beside its score, or an age beside a probability, is not."""
    values = by_image.astype(np.float64).reshape(len(by_image), -1)
    rms = np.sqrt(np.square(np.where(np.isfinite(values), values, 0)).mean(axis=0))
    return len(groups_by_magnitude(rms, np.flatnonzero(rms))) < 2


def _scores(
    place: int, layout: OutputLayout, output: Array, after_sigmoid: frozenset[str], *, labelled: bool
) -> ClassScores | None:
    by_image = layout.by_image(output)
    sizes = [size for size in by_image.shape[1:] if size != 1]
    if by_image.dtype.kind in "iu":
        return ClassScores(place, "label", None) if labelled and not sizes else None
    if by_image.dtype.kind != "f" or len(sizes) > 1:
        return None
    if not sizes:
        if not labelled:
            return None
        within = bool(((by_image >= 0) & (by_image <= 1)).all())
        is_probability = layout.name in after_sigmoid or within
        return ClassScores(place, "probability" if is_probability else "logit", 2)
    values = by_image.reshape(len(by_image), -1)
    return ClassScores(place, "probabilities" if are_probabilities(values) else "logits", sizes[0])


def are_probabilities(values: Array, axis: int = -1) -> bool:
    """Are all values at least 0, and does every row sum to 1?"""
    rounding = np.finfo(np.float32).eps
    return bool(
        values.size
        and values.shape[axis] > 1
        and (values >= -rounding).all()
        and (np.abs(values.sum(axis=axis, dtype=np.float64) - 1) <= _SUMS_TO_ONE).all()
    )
