"""Equalization: channels of very different magnitude are scaled to share one INT8 grid, with the same function.

One tensor has one scale, so a channel that is 64 times louder than the others leaves them two of eight bits. Dividing
it by 64 where it is made, and multiplying the weights that read it, costs nothing: INT8 weights have a scale for each
output channel, so what makes a channel takes up any factor, and what reads it shares its grid with few others (M. Nagel
et al., 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV; G. Xiao et al., 2023,
"SmoothQuant", ICML). Factors are powers of two, so that the FP32 outputs stay what they were, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quant.onnx_graph.editor import GraphEditor
from quant.qdq.placement import quantizable_inputs
from quant.qdq.preparation import prepared_for_quantization
from quant.recovery.channels.groups import ChannelGroups, channel_groups
from quant.recovery.channels.statistics import ChannelStatistics, channel_statistics
from quant.recovery.channels.walk import FIXED, ScaledConstant, small
from quant.recovery.inner_values import all_values

Array = NDArray[Any]

EXPONENTS = (0.25, 0.5, 0.75, 1.0)  # SmoothQuant's: how much of the difficulty goes from activations to weights
_WORTH_IT = 0.9  # of the noise that is predicted: less of a gain is not worth another model
_LARGEST = 2.0**16  # of a factor


@dataclass(frozen=True)
class Place:
    """Channels that share a scale somewhere, and so are equalized together.

    Attributes:
        tensor: The first of their quantized tensors, for people.
        channels: How many factors there are.
        exponent: The exponent that was chosen; 0 where they stay as they are.
        spread: Largest factor divided by the smallest.
        gain_db: Predicted gain in the SQNR of what reads them, dB.
    """

    tensor: str
    channels: int
    exponent: float
    spread: float
    gain_db: float


@dataclass(frozen=True)
class Equalized:
    """An equalized model.

    Attributes:
        proto: FP32 model with the same outputs.
        places: Where factors could be chosen, those that changed first.
    """

    proto: onnx.ModelProto
    places: tuple[Place, ...]

    @property
    def changed(self) -> int:
        """How many places were equalized."""
        return sum(place.exponent > 0 for place in self.places)


def equalized_model(
    proto: onnx.ModelProto, groups: ChannelGroups, statistics: Mapping[str, ChannelStatistics]
) -> Equalized:
    """Equalize where less noise is predicted.

    Args:
        proto: FP32 model; not edited.
        groups: Its factors, of the graph that `prepared_for_quantization` makes of it.
        statistics: Of its quantized tensors.
    """
    editor = prepared_for_quantization(proto)
    readers = _readers(editor, groups, statistics)
    factors = np.ones(groups.count)
    places = []
    for channels in _places(groups.count, statistics.values()):
        own = [reader for reader in readers if np.isin(reader.statistics.ids, channels).any()]
        if not own:
            continue
        place, chosen = _best(channels, own, factors)
        factors[channels] = chosen
        places.append(place)
    with_factors(editor, groups.constants, factors)
    return Equalized(editor.model(), tuple(sorted(places, key=lambda place: -place.gain_db)))


@dataclass(frozen=True)
class _Reader:
    """A quantized product of an activation with constant weights.

    Attributes:
        tensor: The activation.
        statistics: Its channels.
        weights: float64 [outputs, elements], what is multiplied for each output channel.
        ids: int64, broadcast to `weights`: the numbers of the factors of what each weight reads.
        mean_square: Of what each weight reads, the same shape as `ids`.
    """

    tensor: str
    statistics: ChannelStatistics
    weights: NDArray[np.float64]
    ids: NDArray[np.int64]
    mean_square: NDArray[np.float64]

    def noise(self, factors: NDArray[np.float64]) -> float:
        """The predicted noise in its outputs relative to their power, with these factors.

        Uniform rounding errors of one step of the activation's scale, and of each output channel's weights.
        """
        step = (self.statistics.amax / factors[self.statistics.ids]).max() / 127
        scaled = self.weights * factors[self.ids]
        weight_step = np.abs(scaled).max(axis=1, keepdims=True) / 127
        data = np.broadcast_to(self.mean_square, scaled.shape)
        noise = step**2 * np.square(scaled).sum(axis=1) + np.square(weight_step[:, 0]) * (
            data / np.square(factors[self.ids])
        ).sum(axis=1)
        power = (np.square(self.weights) * data).sum(axis=1)
        alive = power > 0
        return float((noise[alive] / power[alive]).mean() / 12) if alive.any() else 0.0

    def columns(self, count: int) -> NDArray[np.float64]:
        """How large the weights are that read each factor, beside the largest of their output channel."""
        largest = np.abs(self.weights).max(axis=1, keepdims=True)
        shares = np.square(self.weights / np.where(largest > 0, largest, 1))
        ids = np.broadcast_to(self.ids, shares.shape).reshape(-1)
        total = np.bincount(ids, shares.reshape(-1), minlength=count)
        return np.asarray(np.sqrt(total / np.maximum(np.bincount(ids, minlength=count), 1)))


def _readers(editor: GraphEditor, groups: ChannelGroups, statistics: Mapping[str, ChannelStatistics]) -> list[_Reader]:
    """The products with constant weights whose other operand is quantized and has factors."""
    taken = {(c.node, c.position): c for c in groups.constants if c.enters is not None}
    readers = []
    for edge in quantizable_inputs(editor):
        constant = taken.get((edge.node, 1 - edge.position))
        if constant is None or edge.tensor not in statistics or constant.enters is None:
            continue
        node, known = editor.nodes[edge.node], statistics[edge.tensor]
        weights = editor.constants[node.input[1 - edge.position]].astype(np.float64)
        by_id = np.zeros(groups.count)
        np.maximum.at(by_id, known.ids.reshape(-1), known.mean_square.reshape(-1))
        rows, ids = _by_output(node, weights, constant)
        readers.append(_Reader(edge.tensor, known, rows, ids, by_id[ids]))
    return readers


def _by_output(
    node: onnx.NodeProto, weights: NDArray[np.float64], constant: ScaledConstant
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Weights and numbers with the output channels first, and all that one of them reads in a row."""
    ids = np.broadcast_to(np.asarray(constant.enters), weights.shape)
    if node.op_type == "ConvTranspose":
        axis = 1  # its groups share a row, which predicts a little too much noise
    elif node.op_type == "Conv":
        axis = 0
    else:
        axis = weights.ndim - (1 if constant.position == 1 else 2)
    count = weights.shape[axis]
    return np.moveaxis(weights, axis, 0).reshape(count, -1), np.moveaxis(ids, axis, 0).reshape(count, -1)


def _places(count: int, statistics: Iterable[ChannelStatistics]) -> list[NDArray[np.int64]]:
    """The factors in groups that share a scale in some tensor."""
    parents = np.arange(count)

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = int(parents[i])
        return i

    found = set()
    for known in statistics:
        numbers = [int(i) for i in np.unique(known.ids) if i != FIXED]
        found.update(numbers)
        for number in numbers[1:]:
            first, second = sorted((root(numbers[0]), root(number)))
            parents[second] = first
    groups: dict[int, list[int]] = {}
    for number in sorted(found):
        groups.setdefault(root(number), []).append(number)
    return [np.array(numbers) for numbers in groups.values()]


def _best(
    channels: NDArray[np.int64], readers: Sequence[_Reader], factors: NDArray[np.float64]
) -> tuple[Place, NDArray[np.float64]]:
    """The exponent with the least predicted noise, and its factors."""

    def noise(chosen: NDArray[np.float64]) -> float:
        tried = factors.copy()
        tried[channels] = chosen
        return sum(reader.noise(tried) for reader in readers)

    ones = np.ones(len(channels))
    before, best, exponent, least = noise(ones), ones, 0.0, np.inf
    for tried in EXPONENTS:
        chosen = _factors(channels, readers, tried, len(factors))
        found = noise(chosen)
        if found < least:
            best, exponent, least = chosen, tried, found
    if not least < _WORTH_IT * before:
        best, exponent, least = ones, 0.0, before
    gain = 10 * np.log10(before / least) if least > 0 else 0.0
    return Place(readers[0].tensor, len(channels), exponent, float(best.max() / best.min()), float(gain)), best


def _factors(
    channels: NDArray[np.int64], readers: Sequence[_Reader], exponent: float, count: int
) -> NDArray[np.float64]:
    """SmoothQuant's factors, as powers of two around 1."""
    amax, columns = np.zeros(count), np.zeros(count)
    fixed = 0.0
    for reader in readers:
        ids = reader.statistics.ids.reshape(-1)
        np.maximum.at(amax, ids, reader.statistics.amax.reshape(-1))
        columns = np.maximum(columns, reader.columns(count))
        fixed = max(fixed, float(reader.statistics.amax[reader.statistics.ids == FIXED].max(initial=0)))
    loud, weighty = amax[channels], columns[channels]
    alive = (loud > 0) & (weighty > 0)
    if not alive.any():
        return np.ones(len(channels))
    logs = exponent * np.log2(loud[alive]) - (1 - exponent) * np.log2(weighty[alive])
    # Beside channels whose factor is 1, the loudest may become as loud as they are, and otherwise the scale is free.
    middle = np.max(np.log2(loud[alive]) - logs) - np.log2(fixed) if fixed else -np.median(logs)
    result = np.ones(len(channels))
    result[alive] = np.clip(2.0 ** np.round(logs + middle), 1 / _LARGEST, _LARGEST)
    return result


def with_factors(editor: GraphEditor, constants: Sequence[ScaledConstant], factors: NDArray[np.float64]) -> GraphEditor:
    """Write factors into constants, in place; one that several nodes read gets a copy for each.

    Args:
        editor: The prepared graph.
        constants: Those that take up factors.
        factors: float64, by number; the first is 1.
    """
    for constant in constants:
        node = editor.nodes[constant.node]
        name = node.input[constant.position]
        scale = np.ones(())
        if constant.enters is not None:
            scale = scale * factors[small(constant.enters)]
        if constant.leaves is not None:
            scale = scale / factors[small(constant.leaves)]
        old = editor.constants[name]
        if (scale == 1).all() or not old.any():
            continue
        new = old.astype(np.float64) * scale
        new = (new.reshape(old.shape) if new.size == old.size else new).astype(old.dtype)
        fresh = editor.fresh_name(f"{name}_equalized")
        editor.constants[fresh] = new
        node.input[constant.position] = fresh
    return editor


def equalize(proto: onnx.ModelProto, images: Sequence[Mapping[str, Array]]) -> Equalized:
    """Equalize a model from some images.

    Args:
        proto: FP32 model; not edited.
        images: Inputs, an image at a time, or as many as the model requires.

    Raises:
        BuildError: The model has no INT8 form.
        ModelError: It cannot be run.
    """
    editor = prepared_for_quantization(proto)
    prepared = editor.model()
    names = [name for node in editor.nodes for name in node.output if name]
    groups = channel_groups(editor, all_values(prepared, images[0], names))
    quantized = {edge.tensor for edge in quantizable_inputs(editor)}
    ids = {name: groups.tensors[name] for name in quantized if name in groups.tensors}
    return equalized_model(proto, groups, channel_statistics(prepared, images, ids))
