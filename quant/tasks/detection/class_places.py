"""Where the classes of labels stand among those of a model: by name, by number, or in the same order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.source import AnySource, BoxSource
from quant.errors import QuantError
from quant.tasks.detection.boxes import Detections
from quant.tasks.detection.heads import Head

Places = NDArray[np.int64]


class ClassPlaces:
    """Brings the classes of labels into the model's order.

    A model may count its classes by the numbers that the labels' file gives them, which have gaps: COCO's 80 classes
    are called 1 to 90 there, and models with 91 outputs, or 90, have one for each number.
    """

    def __init__(self, source: AnySource, head: Head, names: Sequence[str] | None) -> None:
        """Settle what can be settled before anything is detected.

        Args:
            source: The labels.
            head: The model's.
            names: The model's classes, where known; those of the labels where the model has none.

        Raises:
            QuantError: The classes of the labels are not those of the model.
        """
        self._head, self._names = head, None if names is None else tuple(names)
        numbers = source.numbers if isinstance(source, BoxSource) and names == source.class_names else None
        self._numbers = None if numbers is None else np.array(numbers, np.int64)
        by_number = _places_by_number(self._numbers, head.classes)
        self._by_number = by_number is not None
        self._places = by_number if by_number is not None else places_of_classes(source, head.classes, names)

    @property
    def settled(self) -> Places | None:
        """Where each class of the labels stands, as far as that is known before anything is detected."""
        return self._places

    def places(self, found: Sequence[Detections]) -> Places | None:
        """Where each class of the labels stands; None where both count in the same order.

        Final detections do not say how many classes there are. If they name more than the labels have, and no more than
        the labels' numbers go to, they are those numbers.

        Args:
            found: What the baseline detects in all images.
        """
        if self._places is not None or self._numbers is None or self._head.classes is not None:
            return self._places
        largest = max((int(each.classes.max(initial=-1)) for each in found), default=-1)
        places = self._numbers - int(getattr(self._head, "first_label", 0))
        return places if len(places) <= largest <= places[-1] else None

    def are_numbers(self, found: Sequence[Detections]) -> bool:
        """Does the model count its classes by the labels' numbers?"""
        return self._by_number or (self._places is None and self.places(found) is not None)

    def names(self, found: Sequence[Detections]) -> tuple[str, ...] | None:
        """The classes in the model's order, where known."""
        places = self.places(found)
        if self._names is None or places is None or not self.are_numbers(found):
            return self._names
        at = dict(zip(places.tolist(), self._names, strict=True))
        return tuple(at.get(i, str(i)) for i in range(int(places.max()) + 1))


def _places_by_number(numbers: Places | None, classes: int | None) -> Places | None:
    """The labels' numbers as places in a model that has one for each from 0, or from 1; None where it does not."""
    if numbers is None or classes is None or len(numbers) == classes:
        return None
    first = {int(numbers[-1]) + 1: 0, int(numbers[-1]): 1}.get(classes)
    return None if first is None else numbers - first


def places_of_classes(source: AnySource, classes: int | None, names: Sequence[str] | None) -> Places | None:
    """Where the labels' classes stand among the model's, by name; None where both count in the same order.

    Raises:
        QuantError: They are others.
    """
    own = source.class_names
    if own is None or names is None or tuple(own) == tuple(names):
        wrong = classes is not None and own is not None and len(own) > classes
        if wrong and own is not None:
            raise QuantError(
                f"{source.path}: expected boxes of at most the {classes} classes that the model has, found {len(own)} "
                f"({', '.join(own[:3])}, ...); give labels of this model"
            )
        return None
    if set(own) <= set(names):
        return np.array([list(names).index(name) for name in own], np.int64)
    if len(own) == len(names):
        return None  # renamed, or in another language: the order is all there is
    missing = next(name for name in own if name not in names)
    raise QuantError(
        f"{source.path}: expected boxes of the model's {len(names)} classes ({', '.join(names[:3])}, ...), found "
        f"'{missing}'; give all class names in the model's order with --classes"
    )
