"""The numbers of a graph's factors while they are found: which are the same, which are 1, and what takes them up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quant.onnx_graph.editor import GraphEditor

Array = NDArray[Any]
Ids = NDArray[np.int64]

FIXED = 0  # the factor is 1
ANY = -1  # of a zero, which every factor leaves as it is


@dataclass(frozen=True)
class ScaledConstant:
    """A constant that takes up factors: its values times s[enters] / s[leaves].

    Attributes:
        node: Index of the node that reads it.
        position: Which of the node's inputs.
        enters: Numbers of the factors of what is read, broadcast against the constant; None for none.
        leaves: Those of what is written.
    """

    node: int
    position: int
    enters: Ids | None
    leaves: Ids | None


class Walk:
    """One walk over the graph."""

    def __init__(self, editor: GraphEditor, values: Mapping[str, Array]) -> None:
        self.editor, self.values = editor, values
        self.ids: dict[str, Ids] = {}
        self.constants: list[ScaledConstant] = []
        self._parents = [FIXED]
        for value in editor.proto.graph.input:
            if value.name in values and is_float(values[value.name]):
                self.ids[value.name] = np.broadcast_to(np.int64(FIXED), values[value.name].shape)

    def final_numbers(self) -> NDArray[np.int64]:
        """The number that each number ends as: equal ones for equal factors, `FIXED` for 1."""
        roots = np.array([self._root(i) for i in range(len(self._parents))])
        result: NDArray[np.int64] = np.unique(roots, return_inverse=True)[1]  # FIXED is the smallest, so it stays 0
        return result

    def constant(self, node: onnx.NodeProto, position: int) -> Array | None:
        """A constant input of a node; None where there is none."""
        return self.editor.constants.get(node.input[position]) if len(node.input) > position else None

    def fix(self, name: str) -> None:
        """The factors of a tensor are 1."""
        if name in self.ids:
            for number in np.unique(small(self.ids[name])):
                if number > FIXED:
                    self._join(int(number), FIXED)

    def is_fixed(self, name: str) -> bool:
        """Are all factors of a tensor 1?"""
        return all(number < 0 or self._root(int(number)) == FIXED for number in np.unique(small(self.ids[name])))

    def same(self, *arrays: Ids) -> None:
        """The factors of elements in the same place are the same; arrays are broadcast against each other."""
        first, *others = np.broadcast_arrays(*arrays)
        base = len(self._parents) + 1
        for other in others:
            one, two = _small_together(first, other)
            for pair in np.unique((one + 1) * base + two + 1):
                a, b = int(pair) // base - 1, int(pair) % base - 1
                if a > ANY and b > ANY:
                    self._join(a, b)

    def along(self, ids: Ids, axes: Sequence[int]) -> Ids:
        """The factors along some axes are the same; gives the array with these axes of length 1."""
        for axis in axes:
            ids = np.moveaxis(ids, axis, 0)
            if len(ids) > 1 and ids.strides[0]:
                self.same(*ids) if len(ids) <= 64 else self._same_rows(ids)
            ids = np.moveaxis(ids.max(axis=0, keepdims=True) if ids.strides[0] else ids[:1], 0, axis)
        return ids

    def _same_rows(self, ids: Ids) -> None:
        rows = np.unique(np.ascontiguousarray(ids).reshape(len(ids), -1), axis=0)
        self.same(*rows)

    def fresh(self, count: int) -> Ids:
        """New numbers."""
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        return np.arange(start, start + count)

    def take_up(self, node: int, position: int, *, enters: Ids | None = None, leaves: Ids | None = None) -> None:
        """A constant takes up factors."""
        self.constants.append(ScaledConstant(node, position, enters, leaves))

    def write(self, name: str, ids: Ids) -> None:
        """The numbers of what a node writes, broadcast to its shape."""
        self.ids[name] = np.broadcast_to(ids, self.values[name].shape)

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def _join(self, a: int, b: int) -> None:
        first, second = sorted((self._root(a), self._root(b)))
        self._parents[second] = first


def narrow(ids: Ids) -> Ids:
    """The same array, with stride 0 along axes on which it does not change."""
    shape = ids.shape
    for axis in range(ids.ndim):
        first = ids.take([0], axis=axis) if ids.shape[axis] else ids
        if ids.shape[axis] > 1 and (ids == first).all():
            ids = first
    return np.broadcast_to(ids, shape)


def small(ids: Ids) -> Ids:
    """One element along axes of stride 0."""
    return ids[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in ids.strides)]


def _small_together(*arrays: Ids) -> Iterator[Ids]:
    """The arrays, of one shape, with one element along axes on which none changes."""
    strides: Iterable[tuple[int, ...]] = zip(*(array.strides for array in arrays), strict=True)
    kept = tuple(slice(None) if any(each) else slice(0, 1) for each in strides)
    return (array[kept] for array in arrays)


def is_float(array: Array | None) -> bool:
    """Is this an array of floating type?"""
    return array is not None and array.dtype.kind == "f"
