"""NaN in an evaluated image: it is named, and nothing is shown."""

import numpy as np
import pytest

from quant.evaluation.not_numbers import images_with_nan, nan_in_words
from quant.evaluation.outputs import ClassScores, OutputLayout, OutputReader

LAYOUTS = (OutputLayout("boxes", 0), OutputLayout("logits", 1))
READER = OutputReader(LAYOUTS, ClassScores(1, "logits", 3))
NAMES = ("a", "b", "c")


def found(inputs=None, boxes=None, logits=None):
    inputs = {"x": np.zeros((3, 4), np.float32)} if inputs is None else inputs
    boxes = np.zeros((3, 4)) if boxes is None else boxes
    return images_with_nan(inputs, [boxes, np.zeros((3, 3)) if logits is None else logits], READER, NAMES)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_nan_in_an_input_is_found(kind):
    array = np.zeros((3, 2, 2), kind)
    assert found({"x": array, "ids": np.ones((3, 1), np.int64), "scale": np.float32(1).reshape(())}) == []
    array[1, 1, 0] = np.nan
    assert found({"x": array}) == ["b"]


def test_infinity_may_be_meant():
    assert found({"mask": np.full((3, 2), -np.inf, np.float32)}) == []


def test_nan_in_the_class_scores_counts_and_elsewhere_it_is_compared_like_any_value():
    logits = np.zeros((3, 3))
    logits[0, 2] = np.nan  # images are on axis 1
    assert found(logits=logits) == ["c"]
    assert found(boxes=np.full((3, 4), np.nan)) == []


def test_the_images_are_named():
    assert nan_in_words([]) == ""
    assert nan_in_words(["row7"]).startswith("image 'row7' holds NaN, or FP32 answers with NaN: nothing is shown")
    assert nan_in_words(["row7", "b", "c"]).startswith("3 images, 'row7' first, hold NaN")
