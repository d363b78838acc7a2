"""PSNR and SSIM, against loops over windows."""

import numpy as np
import pytest

from quant.evaluation.outputs import OutputLayout
from quant.tasks.pictures.recorder import picture_head_from_outputs
from quant.tasks.pictures.similarity import psnr, ssim

RNG = np.random.default_rng(1)
RIGHT = RNG.random((2, 3, 15, 14))
MINE = np.clip(RIGHT + RNG.normal(0, 0.1, RIGHT.shape), 0, 1)


def ssim_by_loops(mine, right, peak):
    at = np.arange(11) - 5
    window = np.exp(-np.square(at) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    one, two = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    found = []
    for channel in range(mine.shape[0]):
        for y in range(mine.shape[1] - 10):
            for x in range(mine.shape[2] - 10):
                a, b = (each[channel, y : y + 11, x : x + 11] for each in (mine, right))
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
                both = (window * a * b).sum() - mean_a * mean_b
                top = (2 * mean_a * mean_b + one) * (2 * both + two)
                found.append(top / ((mean_a**2 + mean_b**2 + one) * (var_a + var_b + two)))
    return np.mean(found)


def test_structural_similarity():
    np.testing.assert_allclose(
        ssim(MINE, RIGHT, 1.0), [ssim_by_loops(a, b, 1.0) for a, b in zip(MINE, RIGHT, strict=True)]
    )
    np.testing.assert_allclose(ssim(255 * MINE, 255 * RIGHT, 255.0), ssim(MINE, RIGHT, 1.0))
    np.testing.assert_allclose(ssim(RIGHT, RIGHT, 1.0), 1)


def test_peak_signal_to_noise_ratio():
    expected = [10 * np.log10(1 / np.square(a - b).mean()) for a, b in zip(MINE, RIGHT, strict=True)]
    np.testing.assert_allclose(psnr(MINE, RIGHT, 1.0), expected)
    assert psnr(RIGHT, RIGHT, 1.0).tolist() == [100, 100]


def enlarged(pictures, factor):
    return pictures.repeat(factor, axis=2).repeat(factor, axis=3)


@pytest.mark.parametrize(
    ("output", "peak"),
    [(RIGHT, 1), (enlarged(RIGHT, 2), 1), (2 * RIGHT - 1, 2), (255 * RIGHT, 255), (np.moveaxis(RIGHT, 1, 3), 1)],
)
def test_what_looks_like_the_input_is_a_picture(output, peak):
    head = picture_head_from_outputs([OutputLayout("y", 0)], [output], RIGHT, certain=False)
    assert head.peak == peak
    assert head.pictures([output]).shape[:2] == (2, 3)


@pytest.mark.parametrize("output", [RNG.normal(0, 1, (2, 3, 15, 14)), RIGHT[..., :7], RIGHT[:, :1], RIGHT[:, :, 0, 0]])
def test_what_does_not_is_none(output):
    assert picture_head_from_outputs([OutputLayout("y", 0)], [output], RIGHT, certain=False) is None


def test_who_says_so_is_believed():
    depth = RNG.random((2, 1, 15, 14))
    assert picture_head_from_outputs([OutputLayout("y", 0)], [depth], RIGHT, certain=True) is not None
