"""Accuracy of builds against the FP32 baseline, from their outputs, batch by batch.

Only what the report needs is kept per image (prediction, confidence, margin), so memory grows by a few bytes per image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quant.backend import Array, Runnable
from quant.errors import QuantError


class EvaluationBatch(Protocol):
    """A batch of images, with labels where they are known."""

    @property
    def inputs(self) -> Mapping[str, Array]: ...  # noqa: D102 - see the class
    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102 - see the class
    @property
    def labels(self) -> NDArray[np.int64] | None: ...  # noqa: D102 - see the class


@dataclass(frozen=True)
class Evaluation:
    """How one build did on all images.

    Attributes:
        images: Number of images evaluated.
        labels: int64 [N]; None when unlabelled.
        predicted: int64 [N], class with the largest logit; None when the model is not a classifier.
        in_top5: bool [N], label among the five largest logits; None without labels.
        confidence: float32 [N], softmax probability of the prediction; None when the model is not a classifier.
        margin: float32 [N], largest logit minus the second largest; None when the model is not a classifier.
        cosine: Mean cosine similarity of an image's outputs with those of the baseline, -1..1.
        sqnr_db: Signal to quantization noise of the outputs against the baseline, dB; infinite when they are equal.
        names: The images' names in their source, N of them.
    """

    images: int
    labels: NDArray[np.int64] | None
    predicted: NDArray[np.int64] | None
    in_top5: NDArray[np.bool_] | None
    confidence: NDArray[np.float32] | None
    margin: NDArray[np.float32] | None
    cosine: float
    sqnr_db: float
    names: tuple[str, ...] = ()

    @property
    def correct(self) -> NDArray[np.bool_] | None:
        """Bool [N]: prediction equals label."""
        if self.labels is None or self.predicted is None:
            return None
        return np.asarray(self.predicted == self.labels)

    @property
    def top1(self) -> float | None:
        """Top-1 accuracy, per cent."""
        return None if self.correct is None else 100 * float(self.correct.mean())

    @property
    def top5(self) -> float | None:
        """Top-5 accuracy, per cent."""
        return None if self.in_top5 is None else 100 * float(self.in_top5.mean())


class Accumulator:
    """Gathers one build's outputs together with the baseline's for the same batches."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Array]] = {
            name: [] for name in ("labels", "predicted", "in_top5", "confidence", "margin")
        }
        self._signal = self._noise = self._cosines = 0.0
        self._images = 0

    def add(self, outputs: Sequence[Array], baseline: Sequence[Array], labels: NDArray[np.int64] | None) -> None:
        """Add a batch.

        Args:
            outputs: The build's outputs; the first axis of each is the batch.
            baseline: The FP32 model's outputs for the same images.
            labels: int64 [B], or None.

        Raises:
            QuantError: The two do not have the same shapes, or a label is not among the model's classes.
        """
        if [o.shape for o in outputs] != [b.shape for b in baseline]:
            raise QuantError(
                f"outputs: expected shapes {[b.shape for b in baseline]} as the FP32 model gives, "
                f"found {[o.shape for o in outputs]}"
            )
        size = len(baseline[0])
        mine, reference = (rows_of_outputs(arrays, size) for arrays in (outputs, baseline))
        self._signal += float(np.square(reference).sum())
        self._noise += float(np.square(reference - mine).sum())
        norms = np.linalg.norm(mine, axis=1) * np.linalg.norm(reference, axis=1)
        dots = np.einsum("ij,ij->i", mine, reference)
        self._cosines += float(
            np.where(norms > 0, dots / np.where(norms > 0, norms, 1), (mine == reference).all(axis=1)).sum()
        )
        self._images += size
        logits = logits_from_outputs(outputs)
        if logits is not None:
            self._add_logits(logits, labels)

    def _add_logits(self, logits: Array, labels: NDArray[np.int64] | None) -> None:
        logits = logits.astype(np.float64)
        predicted = logits.argmax(axis=1)
        rows = np.arange(len(logits))
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        self._columns["predicted"].append(predicted.astype(np.int64))
        self._columns["confidence"].append((1 / exponentials.sum(axis=1)).astype(np.float32))
        two = np.partition(logits, -2, axis=1)[:, -2:] if logits.shape[1] > 1 else np.repeat(logits, 2, axis=1)
        self._columns["margin"].append((two[:, 1] - two[:, 0]).astype(np.float32))
        if labels is None:
            return
        check_labels(labels, logits.shape[1])
        own = logits[rows, labels][:, None]
        earlier = np.arange(logits.shape[1])[None, :] < labels[:, None]
        rank = (logits > own).sum(axis=1) + ((logits == own) & earlier).sum(axis=1)
        self._columns["labels"].append(labels)
        self._columns["in_top5"].append(rank < 5)

    def result(self) -> Evaluation:
        """The evaluation of what was gathered."""
        columns: dict[str, Any] = {
            name: np.concatenate(parts) if parts else None for name, parts in self._columns.items()
        }
        with np.errstate(divide="ignore"):
            sqnr = 10 * np.log10(self._signal / self._noise) if self._noise else np.inf
        return Evaluation(
            images=self._images, cosine=self._cosines / max(self._images, 1), sqnr_db=float(sqnr), **columns
        )


def rows_of_outputs(arrays: Sequence[Array], size: int) -> NDArray[np.float64]:
    """All outputs of each image in one row."""
    return np.concatenate([np.asarray(array, np.float64).reshape(size, -1) for array in arrays], axis=1)


def logits_from_outputs(outputs: Sequence[Array]) -> Array | None:
    """Logits [B, classes] of a classifier: its only output, without trailing axes of size 1; None for other models."""
    if len(outputs) != 1 or outputs[0].ndim < 2 or outputs[0].dtype.kind != "f":
        return None
    array = outputs[0]
    return array.reshape(array.shape[:2]) if all(size == 1 for size in array.shape[2:]) and array.shape[1] > 1 else None


def check_labels(labels: NDArray[np.int64], classes: int) -> None:
    """Raise when a label is not among the model's classes.

    Raises:
        QuantError: There is such a label; the message names the first.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise QuantError(
            f"labels: expected classes 0..{classes - 1} as the model has {classes}, found {int(labels[wrong[0]])}; "
            "give the labels' order with --classes, or labels of this model"
        )


def evaluate(
    builds: Mapping[str, Runnable],
    baseline: str,
    batches: Iterable[EvaluationBatch],
    advance: Callable[[int], None] | None = None,
    observe: Callable[[str, Sequence[Array], EvaluationBatch], None] | None = None,
) -> dict[str, Evaluation]:
    """Run all builds over the same batches, so that each image is read once.

    Args:
        builds: Builds by name.
        baseline: Name of the FP32 build that the others are compared with.
        batches: The images.
        advance: Called with the number of images done.
        observe: Called with a build's name, its outputs and their batch.

    Returns:
        Evaluation of each build.
    """
    accumulators = {name: Accumulator() for name in builds}
    names: list[str] = []
    for batch in batches:
        names.extend(batch.names)
        reference = builds[baseline].run(batch.inputs)
        for name, build in builds.items():
            outputs = reference if name == baseline else build.run(batch.inputs)
            accumulators[name].add(outputs, reference, batch.labels)
            if observe is not None:
                observe(name, outputs, batch)
        if advance is not None:
            advance(len(batch.names))
    return {name: replace(accumulator.result(), names=tuple(names)) for name, accumulator in accumulators.items()}
