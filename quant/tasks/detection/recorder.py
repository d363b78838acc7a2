"""The task of detectors: what each build detects is kept, and held against the labels or against FP32."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.boxes.box_labels import ImageBoxes
from datasets.preprocessing.interface import ImagePreprocessing
from datasets.source import AnySource, BoxSource
from quant.errors import QuantError
from quant.evaluation.accuracy import EvaluationBatch
from quant.evaluation.drop import MetricDrop
from quant.evaluation.sample_size import images_from_width, tells
from quant.tasks.detection.boxes import Detections, areas
from quant.tasks.detection.heads import Head
from quant.tasks.detection.matching import ClassMatches, matches
from quant.tasks.detection.precision import RESAMPLES, Precision, bootstrapped, precision_drop, precision_of
from quant.tasks.detection.shift import USUAL, Confidence, Operating, confidence_of

_FAINT = 0.05  # where FP32 detects nothing with the usual confidence


class DetectionRecorder:
    """Keeps the detections of every build, in pixels of the images: 56 bytes each.

    Attributes:
        head: How they are read.
        labelled: Are they held against labels? Otherwise what FP32 detects counts as right.
    """

    def __init__(
        self,
        head: Head,
        source: AnySource,
        preprocessing: ImagePreprocessing | None,
        size: tuple[int, int],
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Start without detections.

        Args:
            head: How they are read.
            source: The images; their labels, if these are boxes.
            preprocessing: How the images became inputs; None where they came as such.
            size: Height and width of the model's input.
            class_names: The classes in the model's order, where known.

        Raises:
            QuantError: The classes of the labels are not those of the model.
        """
        self.head, self._size = head, size
        self._truth = source if isinstance(source, BoxSource) and preprocessing is not None else None
        self.labelled = self._truth is not None
        self._preprocessing = preprocessing
        names = tuple(class_names) if class_names is not None else source.class_names if self.labelled else None
        self.class_names = names
        self._place_of = places_of_classes(source, head.classes, names) if self.labelled else None
        self._found: dict[str, list[Detections]] = {}
        self._objects: dict[str, list[ImageBoxes]] = {}
        self._matches: dict[str, list[ClassMatches]] = {}
        self._drawn: dict[tuple[str, int], NDArray[np.float64]] = {}

    @property
    def name(self) -> str:
        """Of the score."""
        return "mAP 50-95" if self.labelled else "agreement mAP 50-95"

    @property
    def builds(self) -> Collection[str]:
        """The builds of which there are detections."""
        return self._found.keys()

    def observe(self, build: str, outputs: Sequence[NDArray[Any]], batch: EvaluationBatch) -> None:
        """Keep what a build detects in a batch."""
        images = len(batch.names)
        found = self.head.decode(outputs, images, self._size)
        for i, each in enumerate(found):
            height, width = self._size if batch.sizes is None else (int(side) for side in batch.sizes[i])
            boxes = each.boxes
            if self._preprocessing is not None:
                boxes = self._preprocessing.frame(height, width).in_image(boxes)
            self._found.setdefault(build, []).append(Detections(boxes, each.scores, each.classes))
            if self._truth is not None:
                objects = self._truth.boxes(int(batch.indices[i]), height, width)
                self._check_classes(objects, batch.names[i])
                if self._place_of is not None:
                    objects = ImageBoxes(objects.boxes, self._place_of[objects.classes], objects.crowd, objects.areas)
                self._objects.setdefault(build, []).append(objects)
        self._matches.pop(build, None)  # a sweep adds builds after the first ones were scored

    def _check_classes(self, objects: ImageBoxes, name: str) -> None:
        """Labels without names may count further than the model does."""
        known = self.head.classes if self._place_of is None else len(self._place_of)
        if known is not None and len(objects) and int(objects.classes.max()) >= known:
            raise QuantError(
                f"{name}: expected boxes of the classes 0..{known - 1}, as the model has {known}, found class "
                f"{int(objects.classes.max())}; give labels of this model"
            )

    def truth(self, baseline: str) -> list[ImageBoxes]:
        """The objects of each image; without labels, what the baseline detects with the usual confidence."""
        if self.labelled:
            return self._objects[baseline]
        return [boxes_from_detections(each, self._confidence(baseline)) for each in self._found[baseline]]

    def _confidence(self, baseline: str) -> float:
        """From which score on the baseline's detections count as right; less where it detects nothing so surely."""
        surest = max((float(each.scores.max(initial=0)) for each in self._found[baseline]), default=0.0)
        return USUAL if surest >= USUAL else _FAINT

    def _classes(self) -> int:
        known = [self.head.classes or 0, len(self.class_names or ())]
        largest = [int(each.classes.max(initial=-1)) + 1 for found in self._found.values() for each in found]
        objects = [int(each.classes.max(initial=-1)) + 1 for found in self._objects.values() for each in found]
        return max([1, *known, *largest, *objects])

    def _matches_of(self, build: str, baseline: str) -> list[ClassMatches]:
        if build not in self._matches:
            self._matches[build] = matches(self.truth(baseline), self._found[build], self._classes())
        return self._matches[build]

    def score(self, build: str) -> float:
        """MAP 50-95 of a build, per cent; without labels, against the first of the builds."""
        first = next(iter(self._found))
        return precision_of(self.truth(first), self._found[build], self._classes()).map

    def drop(self, baseline: str, build: str, *, seed: int) -> MetricDrop:
        """What a build loses of mAP 50-95, points."""
        return precision_drop(self._drawn_of(baseline, baseline, seed), self._drawn_of(build, baseline, seed))

    def _drawn_of(self, build: str, baseline: str, seed: int) -> NDArray[np.float64]:
        if (build, seed) not in self._drawn:
            images = len(self._found[baseline])
            self._drawn[build, seed] = bootstrapped(self._matches_of(build, baseline), images, seed=seed)
        return self._drawn[build, seed]

    def problem(self) -> str:
        """Why there is no figure: no image shows an object; empty where there is one."""
        if any((~each.crowd).any() for each in self.truth(next(iter(self._found)))):
            return ""
        if self.labelled:
            return "the labels of the evaluated images hold no box, so nothing can be measured"
        return f"FP32 detects nothing with a score of at least {_FAINT:g}, so there is nothing to agree with"

    def section(self, baseline: str, *, seed: int, max_drop: float) -> dict[str, Any]:
        """The score's section in a report's JSON, and under `detection` all that belongs to detection only.

        Args:
            baseline: Name of the FP32 build.
            seed: Seed of the bootstrap.
            max_drop: Largest accepted drop of mAP 50-95, points; not for agreement, which is no accuracy.
        """
        truth, images, classes = self.truth(baseline), len(self._found[baseline]), self._classes()
        figures = {name: precision_of(truth, found, classes) for name, found in self._found.items()}
        before = confidence_of(self._matches_of(baseline, baseline))
        rows = [{"precision": baseline, "score": figures[baseline].map, **_levels(figures[baseline])}]
        for name in self._found:
            if name == baseline:
                continue
            found = self.drop(baseline, name, seed=seed)
            row = {"score": figures[name].map, "drop": found.drop, "drop_ci95": [found.low, found.high]}
            rows.append({"precision": name, **row, **_levels(figures[name]), **self._enough(found, images, max_drop)})
        return {
            "name": self.name,
            "spec": "detections",
            "unit": "points",
            "against": "labels" if self.labelled else "fp32",
            "allowed_drop": max_drop if self.labelled else None,
            "images": images,
            "resamples": RESAMPLES,
            "seed": seed,
            "builds": rows,
            "detection": {
                "head": self.head.text,
                "against": "labels" if self.labelled else "fp32",
                "threshold": USUAL,
                "objects": int(sum((~each.crowd).sum() for each in truth)),
                "class_names": list(self.class_names) if self.class_names is not None else None,
                "classes": self._by_class(figures),
                "curves": {
                    name: [round(value, 3) if math.isfinite(value) else None for value in each.curve]
                    for name, each in figures.items()
                },
                "confidence": {
                    name: _confidence_row(confidence_of(self._matches_of(name, baseline), before.usual.recall))
                    for name in self._found
                },
            },
        }

    def _enough(self, drop: MetricDrop, images: int, max_drop: float) -> dict[str, Any]:
        if not self.labelled:
            return {"enough_images": None, "images_needed": None}
        enough = tells(drop, max_drop)
        needed = None if enough else images_from_width(drop.high - drop.low, drop.drop - max_drop, images)
        return {"enough_images": enough, "images_needed": needed}

    def _by_class(self, figures: dict[str, Precision]) -> list[dict[str, Any]]:
        """A row for each class that has objects, with every build's average precision."""
        rows = []
        for place, first in enumerate(next(iter(figures.values())).classes):
            names = self.class_names
            rows.append(
                {
                    "class": first.index,
                    "name": names[first.index] if names is not None and first.index < len(names) else str(first.index),
                    "objects": first.objects,
                    "ap": {name: _rounded(each.classes[place].ap) for name, each in figures.items()},
                    "ap50": {name: _rounded(each.classes[place].ap50) for name, each in figures.items()},
                }
            )
        return rows


def places_of_classes(source: AnySource, classes: int | None, names: Sequence[str] | None) -> NDArray[np.int64] | None:
    """Where the labels' classes stand among the model's, by name; None where both count in the same order.

    Raises:
        QuantError: They are others.
    """
    own = source.class_names
    if own is None or names is None or tuple(own) == tuple(names):
        wrong = classes is not None and own is not None and len(own) > classes
        if wrong and own is not None:
            raise QuantError(
                f"{source.path}: expected boxes of at most the {classes} classes that the model has, found {len(own)} "
                f"({', '.join(own[:3])}, ...); give labels of this model"
            )
        return None
    if set(own) <= set(names):
        return np.array([list(names).index(name) for name in own], np.int64)
    if len(own) == len(names):
        return None  # renamed, or in another language: the order is all there is
    missing = next(name for name in own if name not in names)
    raise QuantError(
        f"{source.path}: expected boxes of the model's {len(names)} classes ({', '.join(names[:3])}, ...), found "
        f"'{missing}'; give all class names in the model's order with --classes"
    )


def boxes_from_detections(found: Detections, confidence: float) -> ImageBoxes:
    """Detections as objects, for another build to find again."""
    kept = found.kept(found.scores >= confidence)
    return ImageBoxes(kept.boxes, kept.classes, np.zeros(len(kept), bool), areas(kept.boxes))


def _levels(figures: Precision) -> dict[str, Any]:
    sizes = {f"map_{name}": _rounded(value) for name, value in figures.sizes.items()}
    return {"map50": _rounded(figures.map50), "map75": _rounded(figures.map75), **sizes}


def _confidence_row(found: Confidence) -> dict[str, Any]:
    return {
        "usual": _operating(found.usual),
        "best": _operating(found.best),
        "keeping": None if found.keeping is None else _operating(found.keeping),
        "f1": [round(value, 3) for value in found.f1],
        "histogram": list(found.histogram),
    }


def _operating(at: Operating) -> dict[str, float]:
    return {
        "threshold": round(at.threshold, 4),
        "precision": round(at.precision, 3),
        "recall": round(at.recall, 3),
        "f1": round(at.f1, 3),
    }


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
