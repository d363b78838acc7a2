"""What the numbers in masks mean to a model."""

from pathlib import Path

import numpy as np
import pytest

from datasets import Preprocessing
from quant.errors import QuantError
from quant.tasks.segmentation.truth import MaskReader

BOUND = Preprocessing(resize="stretch", layout="nchw").bound_to([None, 3, 2, 3], "float32")


class Masks:
    """One mask, as a source holds it."""

    text = ""

    def __init__(self, numbers, name="a.png"):
        self.numbers, self.name = np.array(numbers, np.int32), name
        self.values = tuple(np.unique(self.numbers).tolist())

    def mask(self, index):
        return self.numbers

    def mask_path(self, index):
        return Path(self.name)


def truth(numbers, classes=3, ignore=None, name="a.png", size=(2, 3)):
    reader = MaskReader(Masks(numbers, name), BOUND, (2, 3), classes, ignore)
    return reader.truth(0, "a.jpg", *size).tolist(), reader.text


def test_255_is_left_out_by_default():
    assert truth([[0, 1, 2], [255, 1, 0]]) == ([[0, 1, 2], [-1, 1, 0]], "")


def test_another_number_is_left_out_where_that_is_asked():
    assert truth([[0, 1, 2], [2, 1, 0]], ignore=2)[0] == [[0, 1, -1], [-1, 1, 0]]
    assert truth([[0, 1, 2], [255, 1, 0]], ignore=2)[0] == [[0, 1, -1], [-1, 1, 0]]  # no class of three is 255


def test_255_is_the_foreground_where_there_is_nothing_else():
    found, text = truth([[0, 255, 0], [255, 0, 0]], classes=2)
    assert found == [[0, 1, 0], [1, 0, 0]]
    assert "255 the foreground" in text
    reader = MaskReader(Masks([[0, 255, 0], [255, 0, 0]]), BOUND, (2, 3), 2, None)
    reader._source.numbers[1, 2] = 7  # a mask that was not looked at
    with pytest.raises(QuantError, match="0 to 1, found 7"):
        reader.truth(0, "a.jpg", 2, 3)
    assert truth([[0, 255, 0], [255, 0, 0]], classes=2, ignore=255)[0] == [[0, -1, 0], [-1, 0, 0]]


def test_numbers_from_one_where_zero_is_left_out():
    """ADE20K: 0 is everything else, 1 to 150 are a model's classes 0 to 149."""
    found, text = truth([[0, 1, 3], [3, 2, 0]], classes=3, ignore=0)
    assert found == [[-1, 0, 2], [2, 1, -1]]
    assert "1 to 3 are the model's classes 0 to 2" in text
    assert truth([[0, 1, 3], [255, 2, 0]], classes=3, ignore=0)[0] == [[-1, 0, 2], [-1, 1, -1]]
    assert truth([[0, 1, 2], [2, 1, 0]], classes=3, ignore=0)[0] == [[-1, 1, 2], [2, 1, -1]]  # they count from 0


def test_all_numbers_of_cityscapes_become_those_of_its_training():
    """Road is 7 and 0, car 26 and 13, bicycle 33 and 18; 4 (static) and 255 are not evaluated."""
    numbers = [[7, 26, 33], [4, 255, 8]]
    assert truth(numbers, 19, name="x_gtFine_labelIds.png")[0] == [[0, 13, 18], [-1, -1, 1]]


def test_numbers_that_the_model_does_not_have():
    with pytest.raises(
        QuantError, match=r"a\.png: expected the numbers of the model's classes, 0 to 2 or 255, .* 7, 9"
    ):
        truth([[0, 7, 9], [1, 2, 255]])


def test_a_mask_of_another_shape():
    with pytest.raises(
        QuantError, match=r"the shape of 'a\.jpg', 3 x 2 pixels \(height x width, upright\), found 2 x 3"
    ):
        truth([[0, 1, 2], [0, 1, 2]], size=(3, 2))


def test_a_mask_of_another_size_and_the_same_shape():
    assert truth([[0, 1, 2], [0, 1, 2]], size=(200, 300))[0] == [[0, 1, 2], [0, 1, 2]]
