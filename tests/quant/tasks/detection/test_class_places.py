"""Labels that count otherwise than the model does: COCO's numbers with gaps, names in another order."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from quant.errors import QuantError
from quant.tasks.detection.boxes import Detections
from quant.tasks.detection.class_places import ClassPlaces

# The first and the last of COCO's: 12, 26, 29 and 30 are missing, as more are behind them.
NUMBERS = (*range(1, 12), *range(13, 26), 27, 28, *range(31, 45))
NAMES = tuple(f"class {number}" for number in NUMBERS)


class Labels:
    """Labels as a source of boxes has them."""

    path, text, names, labels = Path("a.json"), "", ("a.jpg",), None

    def __init__(self, class_names=NAMES, numbers=NUMBERS):
        self.class_names, self.numbers = class_names, numbers

    def __len__(self):
        return 1

    def boxes(self, index, height, width):
        raise NotImplementedError

    read = content = fingerprint = boxes


def detected(*classes):
    count = len(classes)
    return [Detections(np.zeros((count, 4)), np.ones(count), np.array(classes, np.int64))]


def head(classes=None, first_label=0):
    return SimpleNamespace(classes=classes, first_label=first_label)


@pytest.mark.parametrize(("classes", "first"), [(45, 0), (44, 1)])
def test_a_model_with_an_output_for_each_number(classes, first):
    places = ClassPlaces(Labels(), head(classes), NAMES)
    assert places.settled.tolist() == [number - first for number in NUMBERS]
    assert places.are_numbers(detected(1))
    names = places.names(detected(1))
    assert names[12 - first] == str(12 - first) and names[13 - first] == "class 13"


def test_a_model_with_an_output_for_each_class_counts_without_gaps():
    places = ClassPlaces(Labels(), head(len(NUMBERS)), NAMES)
    assert places.places(detected(39)) is None and not places.are_numbers(detected(39))
    assert places.names(detected(39)) == NAMES


@pytest.mark.parametrize("first", [0, 1])
def test_final_detections_of_classes_beyond_those_of_the_labels_are_numbers(first):
    places = ClassPlaces(Labels(), head(None, first), NAMES)
    assert places.places(detected(3, 39)) is None  # nothing speaks against an order without gaps
    assert places.places(detected(3, 42)).tolist() == [number - first for number in NUMBERS]
    assert places.places(detected(3, 70)) is None  # another model's


def test_names_come_first():
    turned = NAMES[::-1]
    places = ClassPlaces(Labels(), head(len(NAMES)), turned)
    assert [turned[i] for i in places.places(detected(1))] == list(NAMES)
    assert not places.are_numbers(detected(1))


def test_labels_of_more_classes_than_the_model_has():
    with pytest.raises(QuantError, match=r"a\.json: expected boxes of at most the 7 classes"):
        ClassPlaces(Labels(), head(7), NAMES)
