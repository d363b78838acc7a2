"""How often the interval of mAP's drop holds the true drop: draws of images out of a population whose drop is known.

    python scripts/map_interval_coverage.py --draws 1000 --images 250

Objects and detections are made up with a seed; INT8 is FP32 with boxes and scores moved a little and some lost. What is
covered is the drop over the whole population. An interval of 95 % should hold it in 93 to 97 % of 1,000 draws.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quant.evaluation.drop import drop_from_draws
from quant.tasks.detection.boxes import Detections
from quant.tasks.detection.matching import matches, mean_precisions
from quant.tasks.detection.precision import bootstrapped
from tests.detection_scenes import detected, scene

CLASSES = 4


def quantized(rng, found: Detections) -> Detections:
    """What INT8 does to detections: boxes and scores are moved, a few are lost."""
    sides = np.tile(found.boxes[:, 2:] - found.boxes[:, :2], 2)
    boxes = found.boxes + rng.normal(0, 0.02, found.boxes.shape) * sides
    scores = np.clip(found.scores + rng.normal(0, 0.05, len(found)), 0.001, 1)
    return Detections(boxes, scores, found.classes).kept(rng.random(len(found)) > 0.02)


def population(size: int, seed: int):
    rng = np.random.default_rng(seed)
    truth = [scene(rng, CLASSES, 0.02) for _ in range(size)]
    before = [detected(rng, objects, CLASSES, ties=False) for objects in truth]
    return truth, before, [quantized(rng, found) for found in before]


def coverage(draws: int, images: int, resamples: int, size: int, seed: int) -> tuple[float, int]:
    """The true drop in points, and how many of the draws' intervals hold it."""
    truth, before, after = population(size, seed)
    once = np.ones((1, size), np.int64)
    fp32, int8 = (100 * mean_precisions(matches(truth, found, CLASSES), once)[0] for found in (before, after))
    rng, held = np.random.default_rng(seed + 1), 0
    for draw in range(draws):
        drawn = rng.integers(0, size, images)
        parts = [[found[i] for i in drawn] for found in (truth, before, after)]
        found = [matches(parts[0], part, CLASSES) for part in parts[1:]]
        drop = drop_from_draws(*(bootstrapped(each, images, seed=draw, resamples=resamples) for each in found))
        held += drop.low <= fp32 - int8 <= drop.high
    return float(fp32 - int8), held


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--population", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    drop, held = coverage(given.draws, given.images, given.resamples, given.population, given.seed)
    print(f"true drop {drop:.2f} points; {held} of {given.draws} intervals hold it ({100 * held / given.draws:.1f} %)")


if __name__ == "__main__":
    main()
