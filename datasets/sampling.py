"""Choosing samples from a source: seeded and by class, or the first ones in order."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DatasetError
from datasets.source import Source


def sample_indices(
    source: Source, num: int | None, *, sampling: Literal["random", "first"] = "random", seed: int = 0
) -> NDArray[np.int64]:
    """Draw samples from a source without repetition.

    `first` takes them in the source's order. `random` takes them in a seeded, shuffled order; if labels are known, each
    class gets its share (by largest remainder), and at least one sample as long as `num` allows it.

    Every sample gets one raw 64-bit number from PCG64, whose stream NumPy guarantees across versions, and the smallest
    numbers win. A selection is therefore the same everywhere, and without labels a larger one contains a smaller one.

    Args:
        source: The source to draw from.
        num: Number of samples; None, or more than there are, takes all.
        sampling: `random` or `first`.
        seed: Seed of the draw, 0 or more.

    Returns:
        int64 indices into the source, in the order in which to use them.

    Raises:
        DatasetError: `num` is below 1, `sampling` is unknown, or the seed is negative.
    """
    if num is not None and num < 1:
        raise DatasetError(f"number of images: expected 1 or more, found {num}")
    if seed < 0:
        raise DatasetError(f"seed: expected 0 or more, found {seed}")
    total = len(source)
    count = total if num is None else min(num, total)
    if sampling == "first":
        return np.arange(count, dtype=np.int64)
    if sampling != "random":
        raise DatasetError(f"sampling: expected random or first, found {sampling!r}")
    order = np.argsort(np.random.PCG64(seed).random_raw(total), kind="stable").astype(np.int64)
    if source.labels is None or source.labels.ndim != 1 or source.labels.dtype.kind != "i" or count == total:
        return order[:count]
    labels = source.labels[order]
    wanted = _shares(np.unique(labels, return_counts=True), count)
    kept = np.zeros(total, bool)
    for label, share in wanted.items():
        kept[np.flatnonzero(labels == label)[:share]] = True
    return order[kept]


def _shares(classes: tuple[NDArray[np.int64], NDArray[np.intp]], count: int) -> dict[int, int]:
    """Number of samples for each class: proportional by largest remainder, and none empty as long as `count` allows."""
    labels, sizes = classes[0].tolist(), classes[1].tolist()
    total = sum(sizes)
    shares = [count * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(count * sizes[i] % total), i))
    for i in by_remainder[: count - sum(shares)]:
        shares[i] += 1
    if count >= len(sizes):
        for i, share in enumerate(shares):
            if share == 0:
                largest = max(range(len(shares)), key=lambda j: (shares[j], -j))
                shares[largest] -= 1
                shares[i] = 1
    return dict(zip(labels, shares, strict=True))
