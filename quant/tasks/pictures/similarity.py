"""How alike two pictures are: peak signal to noise ratio, and structural similarity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_DB = 100.0  # of equal pictures
_TAPS, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03
Floats = NDArray[np.float64]


def psnr(mine: Floats, right: Floats, peak: float) -> Floats:
    """Peak signal to noise ratio of pictures [N, ...], dB; at most `MOST_DB`."""
    error = np.square(mine - right).reshape(len(mine), -1).mean(axis=1)
    error = np.nan_to_num(error, nan=np.inf)
    with np.errstate(divide="ignore"):
        found: Floats = np.clip(10 * np.log10(peak**2 / error), -MOST_DB, MOST_DB)
    return found


def ssim(mine: Floats, right: Floats, peak: float) -> Floats:
    """Structural similarity of pictures [N, C, H, W], mean over channels and places, -1..1.

    With a Gaussian window of 11 x 11 and a sigma of 1.5, where it fits; of smaller pictures with what fits (Z. Wang et
    al., 2004, "Image quality assessment: from error visibility to structural similarity", IEEE Transactions on Image
    Processing 13).
    """
    one, two = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    mean_a, mean_b = _windowed(mine), _windowed(right)
    var_a = _windowed(mine * mine) - mean_a**2
    var_b = _windowed(right * right) - mean_b**2
    both = _windowed(mine * right) - mean_a * mean_b
    above = (2 * mean_a * mean_b + one) * (2 * both + two)
    below = (mean_a**2 + mean_b**2 + one) * (var_a + var_b + two)
    found: Floats = (above / below).reshape(len(mine), -1).mean(axis=1)
    return np.nan_to_num(found, nan=-1.0)


def _windowed(values: Floats) -> Floats:
    """Weighted means over the window, where it fits."""
    for axis in (2, 3):
        taps = min(_TAPS, values.shape[axis])
        at = np.arange(taps) - (taps - 1) / 2
        weights = np.exp(-0.5 * np.square(at / _SIGMA))
        length = values.shape[axis] - taps + 1
        total = np.zeros(())
        for k, weight in enumerate(weights / weights.sum()):
            total = total + weight * np.take(values, np.arange(k, k + length), axis=axis)
        values = total
    return values
