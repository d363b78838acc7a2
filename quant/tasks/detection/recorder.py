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
from quant.evaluation.drop import Scores
from quant.evaluation.recorder import Outputs, Recorder
from quant.tasks.detection.boxes import Detections, areas
from quant.tasks.detection.changes import changed_boxes
from quant.tasks.detection.class_places import ClassPlaces
from quant.tasks.detection.heads import Head
from quant.tasks.detection.matching import ClassMatches, matches, mean_precisions
from quant.tasks.detection.precision import Precision, precision_of
from quant.tasks.detection.shift import USUAL, Confidence, Operating, confidence_of
from quant.tasks.drawn_recorder import DrawnRecorder, Weights, known

FLOOR_AGREEMENT = 80.0  # mAP 50 against FP32's detections: below that, more than a fifth is lost or elsewhere
LEAST_MAP50 = 1.0  # a detector that reaches less of it does not detect what the labels are of
SHOWN = 12  # images whose changes the report shows
_FAINT = 0.05  # where FP32 detects nothing with the usual confidence


class DetectionRecorder(DrawnRecorder):
    """Keeps the detections of every build, in pixels of the images: 56 bytes each.

    Attributes:
        head: How they are read.
    """

    task, part, spec, what, decides = "detect", "detection", "detections", "detections", "map"
    floor = f"{FLOOR_AGREEMENT:g}"

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
        super().__init__()
        self.head, self._size = head, size
        self._truth = source if isinstance(source, BoxSource) and preprocessing is not None else None
        self.labelled = self._truth is not None
        self._preprocessing = preprocessing
        names = tuple(class_names) if class_names is not None else source.class_names if self.labelled else None
        self._given_names = names
        self._classes_of = ClassPlaces(source, head, names) if self.labelled else None
        self._found: dict[str, list[Detections]] = {}
        self._objects: dict[str, list[ImageBoxes]] = {}
        self._matches: dict[str, list[ClassMatches]] = {}
        self._precisions: dict[str, Precision] = {}
        self._names: list[str] = []

    @property
    def name(self) -> str:
        """Of the score."""
        return "mAP 50-95" if self.labelled else "agreement mAP 50-95"

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes in the model's order, where known."""
        return self._given_names if self._classes_of is None else self._classes_of.names(self._first())

    def _first(self) -> list[Detections]:
        """What the baseline detects."""
        return next(iter(self._found.values()), [])

    def _places(self) -> NDArray[np.int64] | None:
        return None if self._classes_of is None else self._classes_of.places(self._first())

    @property
    def builds(self) -> Collection[str]:
        """The builds of which there are detections."""
        return self._found.keys()

    def observe(self, build: str, outputs: Outputs, batch: EvaluationBatch, reference: Outputs = ()) -> None:
        """Keep what a build detects in a batch."""
        images = len(batch.names)
        found = self.head.decode(outputs, images, self._size)
        if build == next(iter(self._found), build):
            self._names.extend(batch.names)
        for i, each in enumerate(found):
            height, width = self._size if batch.sizes is None else (int(side) for side in batch.sizes[i])
            boxes = each.boxes
            if self._preprocessing is not None:
                boxes = self._preprocessing.frame(height, width).in_image(boxes)
            self._found.setdefault(build, []).append(Detections(boxes, each.scores, each.classes))
            if self._truth is not None:
                objects = self._truth.boxes(int(batch.indices[i]), height, width)
                self._check_classes(objects, batch.names[i])
                self._objects.setdefault(build, []).append(objects)
        self._start_anew(build)

    def _check_classes(self, objects: ImageBoxes, name: str) -> None:
        """Labels without names may count further than the model does."""
        settled = None if self._classes_of is None else self._classes_of.settled
        count = self.head.classes if settled is None else len(settled)
        if count is not None and len(objects) and int(objects.classes.max()) >= count:
            raise QuantError(
                f"{name}: expected boxes of the classes 0..{count - 1}, as the model has {count}, found class "
                f"{int(objects.classes.max())}; give labels of this model"
            )

    def adopt(self, build: str, other: Recorder) -> None:
        """Take what another recorder kept of a build."""
        if isinstance(other, DetectionRecorder):
            self._found[build] = other._found[build]
            self._objects[build] = other._objects.get(build, [])
            self._start_anew(build)

    def _start_anew(self, build: str) -> None:
        """Forget what was worked out of a build, of which there is more now, or something else."""
        self._matches.pop(build, None)
        self._precisions.pop(build, None)
        self.forget(build)

    def truth(self, baseline: str) -> list[ImageBoxes]:
        """The objects of each image; without labels, what the baseline detects with the usual confidence."""
        if self.labelled:
            places = self._places()
            return [
                each if places is None else ImageBoxes(each.boxes, places[each.classes], each.crowd, each.areas)
                for each in self._objects[baseline]
            ]
        return [boxes_from_detections(each, self._confidence(baseline)) for each in self._found[baseline]]

    def _confidence(self, baseline: str) -> float:
        """From which score on the baseline's detections count as right; less where it detects nothing so surely."""
        surest = max((float(each.scores.max(initial=0)) for each in self._found[baseline]), default=0.0)
        return USUAL if surest >= USUAL else _FAINT

    def _classes(self) -> int:
        places = self._places()
        told = [self.head.classes or 0, len(self.class_names or ()), 0 if places is None else int(places.max()) + 1]
        largest = [int(each.classes.max(initial=-1)) + 1 for found in self._found.values() for each in found]
        objects = [int(each.classes.max(initial=-1)) + 1 for found in self._objects.values() for each in found]
        return max([1, *told, *largest, *objects])

    def _matches_of(self, build: str, baseline: str) -> list[ClassMatches]:
        if build not in self._matches:
            self._matches[build] = matches(self.truth(baseline), self._found[build], self._classes())
        return self._matches[build]

    def images(self, build: str) -> int:
        """Of how many images there are detections."""
        return len(self._found[build])

    def score(self, build: str) -> float:
        """MAP 50-95 of a build, per cent; without labels, against the first of the builds."""
        return self._precision_of(build, next(iter(self._found))).map

    def _precision_of(self, build: str, baseline: str) -> Precision:
        if build not in self._precisions:
            self._precisions[build] = precision_of(self.truth(baseline), self._found[build], self._classes())
        return self._precisions[build]

    def scores(self, build: str, baseline: str, weights: Weights) -> Scores:
        """MAP 50-95 of draws, per cent."""
        return 100 * mean_precisions(self._matches_of(build, baseline), weights)

    def problem(self) -> str:
        """Why there is no figure: no image shows an object; empty where there is one."""
        if any((~each.crowd).any() for each in self.truth(next(iter(self._found)))):
            return ""
        if self.labelled:
            return "the labels of the evaluated images hold no box, so nothing can be measured"
        return f"FP32 detects nothing with a score of at least {_FAINT:g}, so there is nothing to agree with"

    def nothing_shown(self, row: dict[str, Any]) -> str:
        """Why the baseline's mAP shows nothing: it is near 0 where boxes or classes do not fit the labels."""
        reached = row["map50"]
        if reached is None or reached >= LEAST_MAP50:
            return ""
        return (
            f"FP32's mAP 50 is {reached:.2f}, next to nothing: the preprocessing is probably wrong (detectors usually "
            "take --preprocess yolo), or the labels are not in the model's order (--classes)"
        )

    def figures(self, build: str, baseline: str) -> dict[str, Any]:
        """MAP at overlaps of 50 and 75 %, and by the objects' sizes, per cent."""
        found = self._precision_of(build, baseline)
        sizes = {f"map_{name}": known(value) for name, value in found.sizes.items()}
        return {"map50": known(found.map50), "map75": known(found.map75), **sizes}

    def told(self, row: dict[str, Any]) -> str:
        """A row's mAP in words."""
        return f"an mAP 50 of {row['map50'] or 0:.2f} (mAP 50-95 of {row['score']:.2f})"

    def is_fit(self, row: dict[str, Any]) -> bool:
        """Does a build detect what FP32 does?"""
        return (row["map50"] or 0) >= FLOOR_AGREEMENT

    def details(self, baseline: str, *, seed: int) -> dict[str, Any]:
        """What belongs to detection only: classes, curves, confidence."""
        truth = self.truth(baseline)
        figures = {name: self._precision_of(name, baseline) for name in self._found}
        before = confidence_of(self._matches_of(baseline, baseline))
        return {
            "head": self.head.text,
            "against": "labels" if self.labelled else "fp32",
            "threshold": USUAL,
            "shown_from": self._confidence(baseline),
            "objects": int(sum((~each.crowd).sum() for each in truth)),
            "counts_as_labels": self._classes_of is not None and self._classes_of.are_numbers(self._first()),
            "class_names": list(self.class_names) if self.class_names is not None else None,
            "classes": self._by_class(figures),
            "changed": {name: self._changes(name, baseline) for name in self._found if name != baseline},
            "curves": {
                name: [round(value, 3) if math.isfinite(value) else None for value in each.curve]
                for name, each in figures.items()
            },
            "confidence": {
                name: _confidence_row(confidence_of(self._matches_of(name, baseline), before.usual.recall))
                for name in self._found
            },
        }

    def _changes(self, build: str, baseline: str) -> list[dict[str, Any]]:
        """The images on which a build's detections differ most from FP32's: boxes lost and gained, then moved."""
        confidence, found = self._confidence(baseline), []
        for place, (first, mine) in enumerate(zip(self._found[baseline], self._found[build], strict=True)):
            changed = changed_boxes(first, mine, confidence)
            if changed:
                counts = {kind: sum(each.kind == kind for each in changed) for kind in ("lost", "gained", "moved")}
                found.append(((-counts["lost"] - counts["gained"], -counts["moved"], place), counts, changed))
        found.sort(key=lambda entry: entry[0])
        return [
            {
                "file": self._names[place],
                **counts,
                "boxes": [each.row(self._class_name(each.label)) for each in changed],
            }
            for (_, _, place), counts, changed in found[:SHOWN]
        ]

    def _class_name(self, label: int) -> str:
        names = self.class_names
        return names[label] if names is not None and 0 <= label < len(names) else str(label)

    def _by_class(self, figures: dict[str, Precision]) -> list[dict[str, Any]]:
        """A row for each class that has objects, with every build's average precision."""
        rows = []
        for place, first in enumerate(next(iter(figures.values())).classes):
            rows.append(
                {
                    "class": first.index,
                    "name": self._class_name(first.index),
                    "objects": first.objects,
                    "ap": {name: known(each.classes[place].ap) for name, each in figures.items()},
                    "ap50": {name: known(each.classes[place].ap50) for name, each in figures.items()},
                }
            )
        return rows


def boxes_from_detections(found: Detections, confidence: float) -> ImageBoxes:
    """Detections as objects, for another build to find again."""
    kept = found.kept(found.scores >= confidence)
    return ImageBoxes(kept.boxes, kept.classes, np.zeros(len(kept), bool), areas(kept.boxes))


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
