"""`antialias = false` is OpenCV's INTER_LINEAR: each pixel from the four next to its point."""

import numpy as np
import pytest

from datasets import Preprocessing
from datasets.preprocessing.geometry import Resizer, letterbox_frame, scaled_and_cropped

RNG = np.random.default_rng(3)


def taps(source, target):
    """Places and weights along one side: pixel centres are at half numbers, and edges repeat."""
    at = (np.arange(target) + 0.5) * source / target - 0.5
    low = np.floor(at).astype(int)
    return np.clip(low, 0, source - 1), np.clip(low + 1, 0, source - 1), at - low


def linear(image, size):
    """Bilinear interpolation by its definition, float64 [h, w, C]."""
    (top, bottom, down), (left, right, over) = (taps(s, t) for s, t in zip(image.shape, size, strict=False))
    image = image.astype(np.float64)
    rows = image[top] * (1 - down)[:, None, None] + image[bottom] * down[:, None, None]
    return rows[:, left] * (1 - over)[:, None] + rows[:, right] * over[:, None]


@pytest.mark.parametrize("size", [(40, 30), (17, 91), (200, 180), (96, 128)])
def test_pixels_come_from_their_four_neighbours(size):
    image = RNG.integers(0, 256, (96, 128, 3)).astype(np.uint8)
    found = Resizer("bilinear", antialias=False)(image, size)
    assert np.abs(found - linear(image, size)).max() <= 0.501
    wide = Resizer("bilinear", antialias=False)(image.astype(np.float32), size)
    np.testing.assert_allclose(wide, linear(image, size), atol=2e-3)


def test_letterbox_without_antialias_is_that_of_detectors():
    """Geometry and values as Ultralytics' LetterBox makes them with OpenCV: 1280x720 into 640x640."""
    image = RNG.integers(0, 256, (720, 1280, 3)).astype(np.uint8)
    described = Preprocessing("yolo", resize="letterbox", antialias=False).bound_to([1, 3, 640, 640], "float32")
    found = described(image).transpose(1, 2, 0) * 255
    (height, width), (top, left) = letterbox_frame((720, 1280), (640, 640))
    assert ((height, width), (top, left)) == ((360, 640), (140, 0))
    assert np.abs(found[140:500] - linear(image, (360, 640))).max() <= 0.501
    np.testing.assert_allclose(np.concatenate([found[:140], found[500:]]), 114, rtol=1e-6)


def test_noise_keeps_its_spread_without_antialias():
    noise = RNG.integers(0, 256, (800, 800, 3)).astype(np.uint8)
    kept, smoothed = (
        Preprocessing(resize="stretch", antialias=on).bound_to([1, 3, 100, 100], "float32")(noise).std()
        for on in (False, True)
    )
    assert kept > 0.5 * (noise / 255).std()
    assert smoothed < 0.2 * (noise / 255).std()


def test_enlarging_is_the_same_either_way():
    image = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    with_it, without = (Resizer("bilinear", on)(image, (50, 70)).astype(int) for on in (True, False))
    assert np.abs(with_it - without).max() <= 1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_part_has_the_values_of_the_whole(monkeypatch, interpolation):
    image = RNG.integers(0, 256, (60, 900, 3)).astype(np.uint8)
    resizer = Resizer(interpolation, antialias=False)
    whole = scaled_and_cropped(image, (32, 32), 0.875, resizer)
    monkeypatch.setattr("datasets.preprocessing.geometry._OWN_PIXELS", 1)
    part = scaled_and_cropped(image, (32, 32), 0.875, resizer)
    assert np.abs(part.astype(int) - whole).max() <= 1
