"""Masks of regions and what a net makes of them, made up with a seed."""

import numpy as np

SIDE = 24  # pixels


def mask(rng, classes):
    """The class of each pixel: rectangles of any class on a ground of class 0."""
    found = np.zeros((SIDE, SIDE), np.int64)
    for _ in range(int(rng.integers(0, 6))):
        found[region(rng)] = rng.integers(0, classes)
    return found


def region(rng, most=16):
    """A rectangle, as an index."""
    top, left = rng.integers(0, SIDE - 2, 2)
    height, width = rng.integers(2, most, 2)
    return slice(top, top + height), slice(left, left + width)


def answered(rng, truth, classes):
    """What a net answers: regions of another class, and borders that are moved by a pixel or two."""
    found = np.roll(truth, rng.integers(-2, 3, 2), (0, 1))
    for _ in range(int(rng.poisson(1))):
        found[region(rng, 8)] = rng.integers(0, classes)
    return found


def disturbed(rng, found, classes):
    """The same after quantization: single pixels and, in some images, a region have another class."""
    changed = found.copy()
    noise = rng.random(found.shape) < 0.02
    changed[noise] = rng.integers(0, classes, int(noise.sum()))
    if rng.random() < 0.1:
        changed[region(rng, 8)] = rng.integers(0, classes)
    return changed
