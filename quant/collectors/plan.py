"""What a pass over the images fetches and counts, decided before the first image, and how a batch is divided.

Both are frozen: whatever runs the model reads the same plan and passes its results to the same counter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from calib.algorithms import Algorithm, Entropy
from calib.histograms.counting import BYTES_OF_COUNTER, BYTES_OF_PACKED, Counted, Counts
from calib.histograms.histogram import Histogram
from calib.histograms.masks import holds_mask
from calib.histograms.packing import gathered
from calib.histograms.statistics import Statistics
from quant.collectors.derivation import Parts, derived_histogram, first_holders, origins, split_limits
from quant.errors import BuildError
from quant.onnx_graph.model import OnnxModel
from quant.onnx_graph.tensor_types import activation_types
from quant.qdq.placement import product_inputs
from quant.qdq.writer import quantizable_tensors

PART_BYTES = 40 << 20  # a part of a batch holds so much
_PART_IMAGES = 8  # and up to twice as much where it would have fewer images: few images are not run efficiently
_NO_ACTIVATION = 1e30  # a magnitude that only masks have
_FLOAT_KINDS = {"tensor(float)", "tensor(float16)", "tensor(double)"}

TypesOf = Callable[[Sequence[str]], Mapping[str, str]]  # ONNX Runtime's types of tensors, such as `tensor(float)`


@dataclass(frozen=True)
class CollectionPlan:
    """What is fetched and counted.

    Attributes:
        origins: Where the values of each tensor come from, by tensor, in the order of the graph.
        inputs: Float inputs of the model that are counted.
        fetched: Activations that are counted, and so have to be fetched.
        first_batch: Count on TensorRT's grid too, which depends on the first batch.
        products: Tensors that enter products of matrices.
        required: Tensors that need a scale, and so must be finite; None where that is not known, for all.
    """

    origins: Mapping[str, Parts]
    inputs: tuple[str, ...]
    fetched: tuple[str, ...]
    first_batch: bool
    products: frozenset[str]
    required: frozenset[str] | None = None

    def counts(self, memory_limit: int | None = None) -> Counts:
        """A counter for one pass, with nothing in it.

        Args:
            memory_limit: Bytes, of which the counts may take half; beyond that they are packed. None for any.
        """
        required, required_clipped = self.required_roots()
        return Counts(
            split_limits(self.origins),
            first_batch=self.first_batch,
            holders=first_holders(self.origins),
            required=required,
            required_clipped=required_clipped,
            packed=self._is_packed(memory_limit),
        )

    def required_roots(self) -> tuple[frozenset[str] | None, frozenset[str]]:
        """Counted tensors that must be finite, None for all; and those whose clipped values must be."""
        needed = [part for name in self.required or () for part in self.origins.get(name, ())]
        whole = frozenset(part.root for part in needed if part.limit is None)
        clipped = frozenset(part.root for part in needed if part.limit is not None)
        return None if self.required is None else whole, clipped

    def _is_packed(self, memory_limit: int | None) -> bool:
        counted = len({*self.inputs, *self.fetched})
        return memory_limit is not None and counted * BYTES_OF_COUNTER > memory_limit // 2

    def left_for_activations(self, memory_limit: int) -> int:
        """Bytes of a limit that the counts leave; at least a quarter of it."""
        counted = len({*self.inputs, *self.fetched})
        each = BYTES_OF_PACKED if self._is_packed(memory_limit) else BYTES_OF_COUNTER
        return max(memory_limit - counted * each, memory_limit // 4)

    def statistics(self, counts: Counted, images: int, batch_size: int) -> Statistics:
        """The statistics of all tensors, after the pass.

        Args:
            counts: What was counted.
            images: Number of images counted.
            batch_size: Images in the largest batch.
        """
        counted = counts.histograms
        found = (
            (name, derived_histogram(parts, counted))
            for name, parts in self.origins.items()
            if not any(
                part.root in counts.dropped or (part.limit is None and part.root in counts.rectified) for part in parts
            )
        )
        # A mask would crush its tensor to zero in a build that gives it a scale.
        kept = ((name, h) for name, h in found if self._must_stay(name) or not _is_masked(h))
        histograms = gathered(kept, len(self.origins))
        left_out = tuple(name for name in self.origins if name not in histograms)
        products = self.products & histograms.keys()
        if counts.first is None:
            return Statistics(histograms, images, products=products, left_out=left_out)
        first = {name: counts.first[self.origins[name][0].root] for name in histograms}
        return Statistics(histograms, images, first, batch_size, products, left_out)

    def _must_stay(self, name: str) -> bool:
        return self.required is None or name in self.required


def _is_masked(histogram: Histogram) -> bool:
    return histogram.abs_max >= _NO_ACTIVATION or holds_mask(histogram)


def collection_plan(model: OnnxModel, algorithm: Algorithm, types_of: TypesOf) -> CollectionPlan:
    """The plan of a pass.

    Args:
        model: FP32 model.
        algorithm: How amax is computed; TensorRT's own entropy needs more than the others.
        types_of: Gives the types of tensors that type inference cannot tell.
    """
    match = isinstance(algorithm, Entropy) and algorithm.match_tensorrt
    types = activation_types(model.graph)
    inputs = [info.name for info in model.inputs if info.dtype.startswith("float")]
    unknown = [name for name, kind in types.items() if kind == onnx.TensorProto.UNDEFINED and name not in inputs]
    kinds = types_of(unknown) if unknown else {}
    floats = {*inputs, *(name for name in types if name not in unknown or kinds[name] in _FLOAT_KINDS)}
    found = origins(model.graph, [name for name in types if name in floats], moved_only=match)
    roots = split_limits(found)
    return CollectionPlan(
        found,
        tuple(name for name in inputs if name in roots),
        tuple(name for name in roots if name not in inputs),
        match,
        frozenset(product_inputs(model.graph) & found.keys()),
        _required(model),
    )


def _required(model: OnnxModel) -> frozenset[str] | None:
    """Tensors that an INT8 model needs scales of; None where it has no INT8 form, or needs none."""
    try:
        return frozenset(quantizable_tensors(model.light)) or None
    except BuildError:
        return None


@dataclass(frozen=True)
class Division:
    """How a batch is run, so that the memory held at a time stays within a budget.

    Attributes:
        images: Images run at a time.
        groups: The fetched tensors, in groups that are fetched one after the other; a single group if all fit.
    """

    images: int
    groups: tuple[tuple[str, ...], ...]


def division(sizes: Mapping[str, int], budget: int, batch: int, fixed: int | None, part: int = PART_BYTES) -> Division:
    """Divide a batch.

    Args:
        sizes: Bytes of each fetched tensor, for one image, or for a whole batch if the model fixes the batch size.
        budget: Bytes that may be held at a time.
        batch: Images in a batch.
        fixed: The batch size that the model requires; None if any will do.
        part: Bytes that a part should have.
    """
    if not sizes:
        return Division(fixed or batch, ((),))
    if sum(sizes.values()) > budget:
        return Division(fixed or 1, _grouped(sizes, budget))
    return Division(fixed or images_in_part(sum(sizes.values()), budget, batch, part), (tuple(sizes),))


def whole_batches(sizes: Mapping[str, int], budget: int, batch: int, fixed: int | None) -> Division:
    """Divide a batch as little as the budget allows, as a GPU wants it; the arguments are those of `division`."""
    total = max(1, sum(sizes.values()))
    if total > budget:
        return Division(fixed or 1, _grouped(sizes, budget))
    return Division(fixed or max(1, min(batch, budget // total)), (tuple(sizes),))


def images_in_part(size: int, budget: int, batch: int, part: int = PART_BYTES) -> int:
    """How many images of `size` bytes of activations are run at a time; divides the batch evenly if possible."""
    size = max(1, size)
    images = max(part // size, min(_PART_IMAGES, 2 * part // size))
    images = max(1, min(images, budget // size))
    return next((even for even in range(images, images // 2, -1) if batch % even == 0), images)


def _grouped(sizes: Mapping[str, int], budget: int) -> tuple[tuple[str, ...], ...]:
    """Tensors in the order of the graph, in groups that fit the budget; a tensor that exceeds it has its own group."""
    groups: list[list[str]] = [[]]
    used = 0
    for name, size in sizes.items():
        if groups[-1] and used + size > budget:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    return tuple(map(tuple, groups))
