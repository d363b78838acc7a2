"""Masks lie where the image's pixels do: held against Pillow's own nearest neighbour on the fitted image."""

import numpy as np
import pytest

from datasets import Preprocessing
from datasets.preprocessing.geometry import Frame

SIZES = [(40, 64), (64, 40), (31, 57), (16, 16), (100, 33), (32, 24)]


@pytest.mark.parametrize("resize", ["crop", "stretch", "letterbox"])
@pytest.mark.parametrize("size", SIZES)
def test_numbers_lie_where_pillow_puts_the_image(resize, size):
    """The image shows its mask's numbers as grey values; resized by the nearest pixel, it must stay its mask."""
    rng = np.random.default_rng(size[0])
    mask = rng.integers(0, 200, size).astype(np.uint8)
    preprocessing = Preprocessing(resize=resize, interpolation="nearest", size=(32, 24), pad_value=255)
    bound = preprocessing.bound_to([None, 3, 32, 24], "float32")
    fitted = bound.fitted(np.repeat(mask[..., None], 3, axis=2))[..., 0]
    frame = bound.frame(*size)
    found = frame.nearest(mask, (32, 24), 255)
    sure = np.ix_(*(between(frame, axis, side) for axis, side in ((1, 32), (0, 24))))
    assert found[sure].size > 300
    np.testing.assert_array_equal(found[sure], fitted[sure])


def between(frame, axis, side):
    """Places whose centre falls into a pixel of the image and not between two, where rounding decides."""
    at = (np.arange(side) + 0.5 - frame.corner[axis]) / frame.scale[axis]
    exact = frame.scale[axis] in (0.5, 1.0, 2.0)  # these are decided without rounding
    return exact | (np.abs(at - np.rint(at)) > 1e-6)


def test_a_letterbox_has_no_numbers_of_the_image():
    bound = Preprocessing(resize="letterbox").bound_to([None, 3, 8, 8], "float32")
    found = bound.frame(4, 8).nearest(np.ones((4, 8), np.int32), (8, 8), -1)
    np.testing.assert_array_equal(found, np.repeat([-1, 1, -1], [2, 4, 2])[:, None] * np.ones(8, int))


def test_back_in_the_image():
    """Of a crop, the image's ends are not seen; of a letterbox, all of it is."""
    values = np.arange(16).reshape(4, 4)
    crop = Frame((1.0, 1.0), (-2.0, 0.0), (8, 4))
    np.testing.assert_array_equal(crop.inverse_nearest(values, (4, 8), -1)[0], [-1, -1, 0, 1, 2, 3, -1, -1])
    letterbox = Frame((0.5, 0.5), (0.0, 1.0), (8, 4))
    np.testing.assert_array_equal(letterbox.inverse_nearest(values, (2, 4), -1), [[4, 5, 6, 7], [8, 9, 10, 11]])
