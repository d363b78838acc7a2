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
from quant.evaluation.fidelity import Noise, OutputFidelity, sqnr_db
from quant.evaluation.not_numbers import images_with_nan
from quant.evaluation.outputs import ClassScores, OutputReader, class_scores, layouts_from_runs
from quant.onnx_graph.model import TensorInfo


class EvaluationBatch(Protocol):
    """A batch of images, with labels where they are known; `sizes` are those of the images before they were resized."""

    @property
    def inputs(self) -> Mapping[str, Array]: ...  # noqa: D102 - see the class
    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102 - see the class
    @property
    def labels(self) -> NDArray[np.int64] | None: ...  # noqa: D102 - see the class
    @property
    def indices(self) -> NDArray[np.int64]: ...  # noqa: D102 - see the class
    @property
    def sizes(self) -> NDArray[np.int64] | None: ...  # noqa: D102 - see the class


Observe = Callable[[str, Sequence[Array], EvaluationBatch, Sequence[Array]], None]
_FIRST = 5  # answers that top-5 looks at


@dataclass(frozen=True)
class Evaluation:
    """How one build did on all images.

    Attributes:
        images: Number of images evaluated.
        labels: int64 [N]; None when unlabelled.
        predicted: int64 [N], class with the largest logit; None when the model is no classifier.
        in_top5: bool [N], label among the five largest logits; None without labels, or where an output is the class.
        confidence: float32 [N], softmax probability of the prediction; None when the model is no classifier.
        margin: float32 [N], largest logit minus the second; None when the model is no classifier.
        cosine: Mean cosine similarity of an image's outputs with those of the baseline, -1..1.
        sqnr_db: Signal to quantization noise of all compared outputs together, dB; infinite when they are equal.
        names: The images' names in their source, N of them.
        fidelity: Each compared output beside the baseline's.
        classes: How many classes there are; None when the model is no classifier.
        not_numbers: Names of the images with NaN in an input or in the baseline's class scores.
        deployed: How the build did in the form in which it is deployed, on the first images alone; None where that
            computes as it is written.
        written: How it did as it is written, on the same images; None where `deployed` is.
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
    fidelity: tuple[OutputFidelity, ...] = ()
    classes: int | None = None
    not_numbers: tuple[str, ...] = ()
    deployed: Evaluation | None = None
    written: Evaluation | None = None

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
        """Top-5 accuracy, per cent; None where five classes are all or more than there are, which says nothing."""
        few = self.classes is not None and self.classes <= _FIRST
        return None if self.in_top5 is None or few else 100 * float(self.in_top5.mean())


class Accumulator:
    """Gathers one build's outputs together with the baseline's for the same batches."""

    def __init__(self, reader: OutputReader) -> None:
        self._reader = reader
        self._columns: dict[str, list[Array]] = {
            name: [] for name in ("labels", "predicted", "in_top5", "confidence", "margin")
        }
        scores = reader.scores.output if reader.scores is not None else None
        self._noises = {place: Noise(reader.layouts[place], whole=place == scores) for place in reader.compared}
        self._cosines = 0.0
        self._images = 0
        self._classes = reader.scores.classes if reader.scores is not None else None

    def add(self, outputs: Sequence[Any], baseline: Sequence[Any], labels: NDArray[np.int64] | None, size: int) -> None:
        """Add a batch.

        Args:
            outputs: The build's outputs.
            baseline: The FP32 model's, of the same images.
            labels: int64 [B], or None.
            size: Images in the batch.

        Raises:
            QuantError: The two do not have the same shapes, or a label is not among the model's classes.
        """
        mine = {place: self._by_image(place, outputs[place], size) for place in self._noises}
        reference = {place: self._by_image(place, baseline[place], size) for place in self._noises}
        found, expected = ([list(array.shape) for array in arrays.values()] for arrays in (mine, reference))
        if found != expected:
            raise QuantError(f"outputs: expected shapes {expected} as the FP32 model gives, found {found}")
        for place, noise in self._noises.items():
            noise.add(mine[place], reference[place])
        self._cosines += _cosines(list(mine.values()), list(reference.values()), size)
        self._images += size
        if self._reader.scores is not None:
            self._add_scores(self._reader.scores, mine[self._reader.scores.output], labels)

    def _by_image(self, place: int, output: Array, size: int) -> Array:
        layout = self._reader.layouts[place]
        if output.ndim <= (layout.axis or 0) or output.shape[layout.axis or 0] != size:
            raise QuantError(
                f"output '{layout.name}': expected {size} images on axis {layout.axis}, found {list(output.shape)}"
            )
        return layout.by_image(output)

    def _add_scores(self, scores: ClassScores, by_image: Array, labels: NDArray[np.int64] | None) -> None:
        if scores.kind == "label":
            self._columns["predicted"].append(scores.answers(by_image))
            if labels is not None:
                self._columns["labels"].append(labels)
            return
        logits = scores.logits(by_image)
        predicted = logits.argmax(axis=1)
        rows = np.arange(len(logits))
        with np.errstate(invalid="ignore"):  # infinite logits have no confidence
            exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        self._columns["predicted"].append(predicted.astype(np.int64))
        self._columns["confidence"].append((1 / exponentials.sum(axis=1)).astype(np.float32))
        two = np.partition(logits, -2, axis=1)[:, -2:]
        self._columns["margin"].append((two[:, 1] - two[:, 0]).astype(np.float32))
        if labels is None:
            return
        check_labels(labels, logits.shape[1])
        own = logits[rows, labels][:, None]
        earlier = np.arange(logits.shape[1])[None, :] < labels[:, None]
        rank = (logits > own).sum(axis=1) + ((logits == own) & earlier).sum(axis=1)
        self._columns["labels"].append(labels)
        self._columns["in_top5"].append(rank < _FIRST)

    def result(self) -> Evaluation:
        """The evaluation of what was gathered."""
        columns: dict[str, Any] = {
            name: np.concatenate(parts) if parts else None for name, parts in self._columns.items()
        }
        totals = [noise.totals for noise in self._noises.values()]
        return Evaluation(
            images=self._images,
            cosine=self._cosines / max(self._images, 1),
            sqnr_db=sqnr_db(sum(signal for signal, _ in totals), sum(noise for _, noise in totals)),
            fidelity=tuple(noise.result() for noise in self._noises.values()),
            classes=self._classes,
            **columns,
        )


def _cosines(mine: Sequence[Array], baseline: Sequence[Array], size: int) -> float:
    """Sum over the images of the cosine similarity of all their outputs; 1 for equal ones."""
    if not mine:
        return float(size)
    found, expected = (rows_of_outputs(arrays, size) for arrays in (mine, baseline))
    finite = np.isfinite(found) & np.isfinite(expected)
    found, expected = np.where(finite, found, 0), np.where(finite, expected, 0)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    dots = np.einsum("ij,ij->i", found, expected)
    same = (found == expected).all(axis=1)
    return float(np.where(norms > 0, dots / np.where(norms > 0, norms, 1), same).sum())


def rows_of_outputs(arrays: Sequence[Array], size: int) -> NDArray[np.float64]:
    """All outputs of each image in one row; the images come first."""
    return np.concatenate([np.asarray(array, np.float64).reshape(size, -1) for array in arrays], axis=1)


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


def reader_from_batch(
    infos: Sequence[TensorInfo] | None,
    baseline: Runnable,
    batch: EvaluationBatch,
    *,
    classes: int | None = None,
    after_sigmoid: frozenset[str] = frozenset(),
) -> OutputReader:
    """How a model's outputs are read, from two runs of it: of a batch and of a part of it.

    Args:
        infos: Its outputs; None numbers them.
        baseline: Runs it.
        batch: Some images.
        classes: How many classes the labels have, where that is known.
        after_sigmoid: Names of outputs that a Sigmoid gives.
    """
    size = len(batch.names)
    whole = baseline.run(batch.inputs)
    part_size = max(size // 2, 1)
    part = whole
    if part_size != size:
        inputs = {name: array[:part_size] if array.ndim else array for name, array in batch.inputs.items()}
        part = baseline.run(inputs)
    if infos is None:
        infos = [TensorInfo(f"#{i}", (), "float32") for i in range(len(whole))]
    layouts = layouts_from_runs(infos, whole, size, part, part_size)
    scores = class_scores(layouts, whole, classes, labelled=batch.labels is not None, after_sigmoid=after_sigmoid)
    return OutputReader(layouts, scores)


def evaluate(
    builds: Mapping[str, Runnable],
    baseline: str,
    batches: Iterable[EvaluationBatch],
    advance: Callable[[int], None] | None = None,
    observe: Observe | None = None,
    *,
    reader: OutputReader | None = None,
    deployed: Mapping[str, Runnable] | None = None,
    deployed_images: int = 512,
) -> dict[str, Evaluation]:
    """Run all builds over the same batches, so that each image is read once.

    Args:
        builds: Builds by name.
        baseline: Name of the FP32 build that the others are compared with.
        batches: The images.
        advance: Called with the number of images done.
        observe: Called with a build's name, its outputs, the batch that they are of, and the baseline's outputs.
        reader: How outputs are read; None to find it with the first batch.
        deployed: By build, what a user would run in its place, where that computes in another way.
        deployed_images: On about so many images, the first ones, the two are held against each other.

    Returns:
        Evaluation of each build.
    """
    running: Evaluating | None = None
    for batch in batches:
        if running is None:
            found = reader or reader_from_batch(None, builds[baseline], batch)
            running = Evaluating(baseline, found, observe, deployed_images)
            for name, build in builds.items():
                running.add(name, build, (deployed or {}).get(name))
        running.take(batch)
        if advance is not None:
            advance(len(batch.names))
    return running.results() if running is not None else {}


class Evaluating:
    """An evaluation that goes on batch by batch; all builds see the same batches in the same order."""

    def __init__(
        self, baseline: str, reader: OutputReader, observe: Observe | None = None, deployed_images: int = 512
    ) -> None:
        """Begin, without builds; see `evaluate`."""
        self._baseline, self._reader, self._observe = baseline, reader, observe
        self._deployed_images = deployed_images
        self._builds: dict[str, _Evaluated] = {}
        self._names: list[str] = []
        self._not_numbers: list[str] = []

    def add(
        self,
        name: str,
        build: Runnable,
        deployed: Runnable | None = None,
        before: Iterable[tuple[EvaluationBatch, Sequence[Array]]] = (),
    ) -> None:
        """Add a build; the baseline is there before the first batch.

        Args:
            name: Its name.
            build: Runs it.
            deployed: What a user would run in its place, where that computes in another way.
            before: The batches taken so far, with the baseline's outputs; it is run on these now.
        """
        self._builds[name] = _Evaluated(build, deployed, self._reader)
        for batch, reference in before:
            self._run(name, batch, reference)

    def take(self, batch: EvaluationBatch) -> Sequence[Array]:
        """Run all builds on the next batch; gives the baseline's outputs."""
        reference = self._builds[self._baseline].build.run(batch.inputs)
        self._not_numbers.extend(images_with_nan(batch.inputs, reference, self._reader, batch.names))
        for name in self._builds:
            self._run(name, batch, reference)
        self._names.extend(batch.names)
        return reference

    def _run(self, name: str, batch: EvaluationBatch, reference: Sequence[Array]) -> None:
        each = self._builds[name]
        outputs = reference if name == self._baseline else each.build.run(batch.inputs)
        size = len(batch.names)
        each.all.add(outputs, reference, batch.labels, size)
        if self._observe is not None:
            self._observe(name, outputs, batch, reference)
        if each.deployed is not None and each.images < self._deployed_images:
            each.written.add(outputs, reference, batch.labels, size)
            each.fused.add(each.deployed.run(batch.inputs), reference, batch.labels, size)
        each.images += size

    def results(self) -> dict[str, Evaluation]:
        """The evaluation of each build, in the order in which they were added."""
        return {name: each.result(tuple(self._names), tuple(self._not_numbers)) for name, each in self._builds.items()}


class _Evaluated:
    """A build under evaluation, and what was gathered of it: of all images, and of the first ones in both forms."""

    def __init__(self, build: Runnable, deployed: Runnable | None, reader: OutputReader) -> None:
        self.build, self.deployed = build, deployed
        self.all, self.written, self.fused = (Accumulator(reader) for _ in range(3))
        self.images = 0

    def result(self, names: tuple[str, ...], not_numbers: tuple[str, ...]) -> Evaluation:
        both = self.deployed is not None
        return replace(
            self.all.result(),
            names=names,
            not_numbers=not_numbers,
            deployed=self.fused.result() if both else None,
            written=self.written.result() if both else None,
        )
