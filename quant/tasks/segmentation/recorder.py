"""The task of segmentation: how well the maps of each build overlap with masks, or with FP32's maps."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.preprocessing.interface import ImagePreprocessing
from datasets.source import AnySource, MaskSource
from quant.evaluation.accuracy import EvaluationBatch
from quant.evaluation.drop import SET_RESAMPLES, Scores, drawn_weights, drop_from_draws
from quant.evaluation.recorder import Outputs, Recorder
from quant.tasks.drawn_recorder import DrawnRecorder, Weights, known
from quant.tasks.segmentation.map_head import MapHead
from quant.tasks.segmentation.overlap import Counts, Ints, counts_of_image, gathered, mean_overlap, share_of
from quant.tasks.segmentation.overlays import Change, change_of_image
from quant.tasks.segmentation.truth import MaskReader

FLOOR_OVERLAP = 70.0  # mIoU with FP32's maps: a map that lost a class of two keeps less
SHOWN = 12  # images whose changes are kept for the report
Map = NDArray[np.int32]


@dataclass
class _Build:
    """What is kept of a build: pixels by image and class, those that agree with FP32 and all, what changed most."""

    parts: list[tuple[Ints, Ints, Ints]] = field(default_factory=list)
    agreeing: list[tuple[int, int]] = field(default_factory=list)
    changed: list[tuple[float, int, Change]] = field(default_factory=list)


@dataclass(frozen=True)
class _Packed:
    """A map, compressed: of large areas, which compress to a few per cent."""

    data: bytes
    shape: tuple[int, ...]

    @staticmethod
    def of(values: Map) -> _Packed:
        return _Packed(zlib.compress(values.astype(np.int16).tobytes(), 1), values.shape)

    def map(self) -> Map:
        return np.frombuffer(zlib.decompress(self.data), np.int16).reshape(self.shape).astype(np.int32)


class SegmentationRecorder(DrawnRecorder):
    """Counts pixels by image and class, and keeps FP32's maps, compressed.

    Attributes:
        head: How maps are read.
        truth_text: What the masks' numbers mean, where that is not plain.
    """

    task, part, spec, what, decides = "segment", "segmentation", "maps of classes", "maps", "miou"
    floor = f"an mIoU of {FLOOR_OVERLAP:g}"

    def __init__(
        self,
        head: MapHead,
        source: AnySource,
        preprocessing: ImagePreprocessing | None,
        size: tuple[int, int],
        class_names: Sequence[str] | None = None,
        ignore_index: int | None = None,
    ) -> None:
        """Start without maps.

        Args:
            head: How maps are read.
            source: The images; their masks, if it has them.
            preprocessing: How the images became inputs; None where they came as such.
            size: Height and width of the model's input.
            class_names: The classes in the model's order, where known.
            ignore_index: See `MaskReader`.
        """
        super().__init__()
        self.head, self._size, self._preprocessing = head, size, preprocessing
        self.class_names = None if class_names is None else tuple(class_names)
        self._reader: MaskReader | None = None
        if preprocessing is not None and isinstance(source, MaskSource):
            self._reader = MaskReader(source, preprocessing, size, head.classes, ignore_index)
        self.labelled = self._reader is not None
        self.truth_text = self._reader.text if self._reader is not None else ""
        self._maps: list[_Packed] = []
        self._truths: list[_Packed] = []
        self._names: list[str] = []
        self._sizes: list[tuple[int, int]] = []
        self._kept: dict[str, _Build] = {}

    @property
    def name(self) -> str:
        """Of the score."""
        return "mIoU" if self.labelled else "pixel agreement"

    @property
    def builds(self) -> Collection[str]:
        """The builds of which there are maps."""
        return self._kept.keys()

    def images(self, build: str) -> int:
        """Of how many images there are maps."""
        return len(self._kept[build].parts)

    def observe(self, build: str, outputs: Outputs, batch: EvaluationBatch, reference: Outputs = ()) -> None:
        """Count a build's pixels in a batch.

        Raises:
            QuantError: A mask does not fit its image or the model.
        """
        is_first = build == next(iter(self._kept), build)
        kept = self._kept.setdefault(build, _Build())
        for i, answer in enumerate(self.head.class_maps(outputs, self._size)):
            place = len(kept.parts)
            if is_first:
                self._take_baseline(answer, batch, i)
            truth, first = self._truths[place].map(), self._maps[place].map()
            classes = max(int(answer.max()), int(truth.max()), 0) + 1
            kept.parts.append(counts_of_image(answer, truth, classes))
            counted = truth >= 0
            same = int((answer == first)[counted].sum())
            kept.agreeing.append((same, int(counted.sum())))
            if not is_first:
                self._keep_change(kept.changed, place, answer, first, truth)
        self.forget(build)

    def _take_baseline(self, answer: Map, batch: EvaluationBatch, i: int) -> None:
        height, width = self._size if batch.sizes is None else (int(side) for side in batch.sizes[i])
        if self._reader is not None:
            truth = self._reader.truth(int(batch.indices[i]), batch.names[i], height, width)
        elif self._preprocessing is not None:
            shown = np.broadcast_to(np.int32(0), (height, width))
            inside = self._preprocessing.frame(height, width).nearest(shown, self._size, -1)
            truth = np.where(inside < 0, -1, answer)
        else:
            truth = answer
        self._maps.append(_Packed.of(answer))
        self._truths.append(_Packed.of(truth))
        self._names.append(batch.names[i])
        self._sizes.append((height, width))

    def _keep_change(
        self, kept: list[tuple[float, int, Change]], place: int, answer: Map, first: Map, truth: Map
    ) -> None:
        """Keep the images that change most; of these the report shows where."""
        counted = truth >= 0
        share = float((answer != first)[counted].mean()) if counted.any() else 0.0
        if not share or (len(kept) == SHOWN and share <= kept[0][0]):
            return
        frame = None if self._preprocessing is None else self._preprocessing.frame(*self._sizes[place])
        mask = truth if self.labelled else None
        change = change_of_image(self._names[place], self._sizes[place], first, answer, truth, mask, frame)
        entry = (share, -place, change)  # places differ, so changes are never compared
        (heapq.heappush if len(kept) < SHOWN else heapq.heappushpop)(kept, entry)

    def adopt(self, build: str, other: Recorder) -> None:
        """Take what another recorder kept of a build, of the same images."""
        if isinstance(other, SegmentationRecorder):
            self._kept[build] = other._kept[build]
            self.forget(build)

    def counts(self, build: str) -> Counts:
        """Pixels of each image, by class."""
        return gathered(self._kept[build].parts, self._classes())

    def _classes(self) -> int:
        least = max(self.head.classes or 1, len(self.class_names or ()))
        return max([least, *(len(array) for kept in self._kept.values() for part in kept.parts for array in part)])

    def scores(self, build: str, baseline: str, weights: Weights) -> Scores:
        """MIoU of draws, or the share of pixels that agree with FP32, per cent."""
        if self.labelled:
            return mean_overlap(self.counts(build).drawn(weights).overlaps())
        same, total = (weights @ column for column in np.array(self._kept[build].agreeing, np.float64).T)
        return 100 * share_of(same, total)

    def figures(self, build: str, baseline: str) -> dict[str, Any]:
        """MIoU, pixels that are right, and those that agree with FP32, per cent."""
        counts = self.counts(build).drawn(np.ones((1, self.images(build)), np.int64))
        same, total = np.array(self._kept[build].agreeing, np.float64).sum(axis=0)
        figures = {"miou": known(float(mean_overlap(counts.overlaps())[0]))}
        if self.labelled:
            figures["pixel_accuracy"] = known(float(counts.accuracy()[0]))
        figures["pixel_agreement"] = known(100 * float(same / total)) if total else None
        return figures

    def told(self, row: dict[str, Any]) -> str:
        """A row's overlap in words."""
        if self.labelled:
            return f"an mIoU of {row['score']:.2f} ({row['pixel_accuracy'] or 0:.2f} % of the pixels)"
        interval = ""
        if "agreement_ci95" in row:
            low, high = row["agreement_ci95"]
            interval = f" (95 % CI {low:.2f} to {high:.2f})"
        return f"{row['score']:.2f} % of the pixels{interval}, an mIoU of {row['miou'] or 0:.2f}"

    def is_fit(self, row: dict[str, Any]) -> bool:
        """Do a build's maps overlap with FP32's?"""
        return (row["miou"] or 0) >= FLOOR_OVERLAP

    def problem(self) -> str:
        """Why there is no figure: no pixel counts."""
        baseline = next(iter(self._kept))
        if any(part[2].any() for part in self._kept[baseline].parts):
            return ""
        return "the masks of the evaluated images hold no pixel that counts, so nothing can be measured"

    def nothing_shown(self, row: dict[str, Any]) -> str:
        """Why the baseline's overlap shows nothing: one class everywhere does as well, or has far more pixels right."""
        there = self.counts(row["precision"]).there.sum(axis=0)
        occurring, common = int((there > 0).sum()), 100 * float(there.max() / there.sum())
        constant = common / occurring  # mIoU of a map that says the commonest class everywhere
        if occurring < 2 or (row["score"] > 1.05 * constant and row["pixel_accuracy"] > common / 2):
            return ""
        return (
            f"FP32's mIoU is {row['score']:.2f} with {row['pixel_accuracy']:.2f} % of the pixels right, where one "
            f"class everywhere has {constant:.2f} and {common:.2f} %: the preprocessing is probably wrong "
            "(--preprocess), or the masks' numbers are not the model's classes"
        )

    def details(self, baseline: str, *, seed: int) -> dict[str, Any]:
        """Overlap by class with the interval of its drop, and where maps changed."""
        return {
            "head": self.head.text,
            "masks": self.truth_text,
            "against": "labels" if self.labelled else "fp32",
            "class_names": None if self.class_names is None else list(self.class_names),
            "classes": self._by_class(baseline, seed),
            "changed": {
                name: [change.row() for _, _, change in sorted(kept.changed, key=lambda each: each[:2], reverse=True)]
                for name, kept in self._kept.items()
                if name != baseline
            },
        }

    def _by_class(self, baseline: str, seed: int) -> list[dict[str, Any]]:
        """A row for each class that occurs, with every build's overlap and what it loses of it."""
        counts = {name: self.counts(name) for name in self._kept}
        images = self.images(baseline)
        weights = np.concatenate([np.ones((1, images), np.int64), drawn_weights(images, SET_RESAMPLES, seed)])
        drawn = {name: each.drawn(weights).overlaps() for name, each in counts.items()}
        there = counts[baseline].there.sum(axis=0)
        rows = []
        for number in range(self._classes()):
            if not any(np.isfinite(each[0, number]) for each in drawn.values()):
                continue
            drops = {
                name: drop_from_draws(drawn[baseline][:, number], each[:, number])
                for name, each in drawn.items()
                if name != baseline
            }
            names = self.class_names
            rows.append(
                {
                    "class": number,
                    "name": names[number] if names is not None and number < len(names) else str(number),
                    "pixels": int(there[number]),
                    "iou": {name: known(float(each[0, number])) for name, each in drawn.items()},
                    "drop": {name: known(each.drop) for name, each in drops.items()},
                    "drop_ci95": {name: _interval(each.low, each.high) for name, each in drops.items()},
                }
            )
        return rows


def _interval(low: float, high: float) -> list[float | None] | None:
    ends = [known(low), known(high)]
    return None if None in ends else ends
