"""Recognises a tensor into which a mask was put: a magnitude far beyond all values, so that a Softmax gives zero there.

An exporter writes such a mask as -infinity, as the lowest float32, or as a number that stands for it, such as -1e9 or
-10000. No scale of 8 bits serves the tensor: one that reaches the mask makes every other value zero, and one that does
not moves the mask to where it hides nothing.
"""

from __future__ import annotations

from calib.histograms.histogram import Histogram

LEAST_MASK = 1000.0  # magnitudes below that are no stand-in for infinity
_APART = 16  # the other values are so many times smaller: they share 8 of the 127 levels, or less
_SPREAD = 1 / 8  # scores that a mask is added to move it by so much at most


def holds_mask(histogram: Histogram) -> bool:
    """Whether a tensor's values are a mask's magnitude, all of one sign, and others that are far smaller.

    A tensor of the mask's magnitude and zeros alone is the mask itself, which INT8 holds exactly.
    """
    largest = histogram.abs_max
    if largest < LEAST_MASK:
        return False
    other_sign = min(abs(histogram.min), abs(histogram.max)) if histogram.min < 0 < histogram.max else 0.0
    if other_sign * _APART > largest:
        return False
    row = 0 if -histogram.min == largest else 1
    counts, width = histogram.signed_counts[row], histogram.widths[row]
    low, high = int(largest / _APART / width), int(largest * (1 - _SPREAD) / width)  # hundreds of bins apart
    others = histogram.count - histogram.zeros - int(counts[high:].sum())
    return others > 0 and not counts[low + 1 : high].any()
