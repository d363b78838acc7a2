"""How often the interval of a score's drop holds the true drop, in draws of a population whose drop is known.

    python scripts/interval_coverage.py map|miou --draws 1000 --images 250

Objects and detections, or masks and maps, are made up with a seed; INT8 is FP32 with a little changed and some lost.
What is covered is the drop over the whole population. An interval of 95 % should hold it in 93 to 97 % of 1,000 draws.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quant.evaluation.drop import drop_from_draws, scores_of_draws
from quant.tasks.detection.boxes import Detections
from quant.tasks.detection.matching import matches, mean_precisions
from quant.tasks.segmentation.overlap import Counts, counts_of_image, gathered, mean_overlap
from tests.detection_scenes import detected, scene
from tests.segmentation_scenes import answered, disturbed, mask

CLASSES = 4


def quantized(rng, found: Detections) -> Detections:
    """What INT8 does to detections: boxes and scores are moved, a few are lost."""
    sides = np.tile(found.boxes[:, 2:] - found.boxes[:, :2], 2)
    boxes = found.boxes + rng.normal(0, 0.02, found.boxes.shape) * sides
    scores = np.clip(found.scores + rng.normal(0, 0.05, len(found)), 0.001, 1)
    return Detections(boxes, scores, found.classes).kept(rng.random(len(found)) > 0.02)


class Scenes:
    """Objects, and what FP32 and INT8 find of them; scored by mAP."""

    def __init__(self, size: int, seed: int):
        rng = np.random.default_rng(seed)
        self.truth = [scene(rng, CLASSES, 0.02) for _ in range(size)]
        before = [detected(rng, objects, CLASSES, ties=False) for objects in self.truth]
        self.found = before, [quantized(rng, each) for each in before]

    def scores(self, drawn):
        """For FP32 and for INT8, the scores of draws of these images, given how often each was drawn."""
        truth = [self.truth[i] for i in drawn]
        for found in self.found:
            matched = matches(truth, [found[i] for i in drawn], CLASSES)
            yield lambda weights, matched=matched: 100 * mean_precisions(matched, weights)


class Masks:
    """Masks, and what FP32 and INT8 make of them; scored by mIoU."""

    def __init__(self, size: int, seed: int):
        rng = np.random.default_rng(seed)
        parts = ([], [])
        for _ in range(size):
            truth = mask(rng, CLASSES)
            before = answered(rng, truth, CLASSES)
            for kept, found in zip(parts, (before, disturbed(rng, before, CLASSES)), strict=True):
                kept.append(counts_of_image(found, truth, CLASSES))
        self.counts = [gathered(each, CLASSES) for each in parts]

    def scores(self, drawn):
        """For FP32 and for INT8, the scores of draws of these images, given how often each was drawn."""
        for whole in self.counts:
            counts = Counts(whole.right[drawn], whole.answered[drawn], whole.there[drawn])
            yield lambda weights, counts=counts: mean_overlap(counts.drawn(weights).overlaps())


POPULATIONS = {"map": Scenes, "miou": Masks}


def coverage(score: str, draws: int, images: int, resamples: int, size: int, seed: int) -> tuple[float, int]:
    """The true drop in points, and how many of the draws' intervals hold it."""
    population, once = POPULATIONS[score](size, seed), np.ones((1, size), np.int64)
    fp32, int8 = (float(scores(once)[0]) for scores in population.scores(np.arange(size)))
    rng, held = np.random.default_rng(seed + 1), 0
    for draw in range(draws):
        of_draw = population.scores(rng.integers(0, size, images))
        drop = drop_from_draws(*(scores_of_draws(each, images, seed=draw, resamples=resamples) for each in of_draw))
        held += drop.low <= fp32 - int8 <= drop.high
    return fp32 - int8, held


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("score", choices=POPULATIONS)
    for name, value in {"draws": 1000, "images": 250, "resamples": 400, "population": 20000, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args(arguments)
    drop, held = coverage(given.score, given.draws, given.images, given.resamples, given.population, given.seed)
    print(f"true drop {drop:.2f} points; {held} of {given.draws} intervals hold it ({100 * held / given.draws:.1f} %)")


if __name__ == "__main__":
    main()
