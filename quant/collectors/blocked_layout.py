"""Activations in the layout that ONNX Runtime's convolutions write.

On the CPU, ONNX Runtime computes convolutions on blocks of channels. It moves each activation that is asked for back
to channels first, which takes as long as the convolutions for small networks. A histogram does not depend on the order
of the values. So ONNX Runtime optimises the model, the moves are removed from the result, and the result is run as it
is.

These operators are internal to ONNX Runtime and may change. Nothing here is taken on trust: `blocked_session` compares
the values of one image with those of the plain session, and returns None if a single histogram differs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper

from calib.errors import NonFiniteError
from calib.histograms.histogram import Histogram
from quant.collectors.derivation import rectifier_limit, scalar_constants
from quant.errors import BuildError, ModelError
from quant.onnx_graph.light_model import AnyModel, bytes_of_constants
from quant.onnxruntime.session import OnnxRuntimeSession

Array = NDArray[Any]

_DOMAIN = "com.microsoft.nchwc"
_LARGEST = 1 << 30  # bytes of a model; a larger one does not fit in one file
SMALL = 32 << 20  # bytes of a model that is read and written in less time than it takes to optimise it once more
_WORTH = 200  # bytes that convolutions must write per byte of constants for another session to pay off


def is_worth_blocking(proto: onnx.ModelProto, activations: Mapping[str, Array], images: int) -> bool:
    """Whether a model's convolutions write so much for these images that another session pays off.

    Args:
        proto: The model.
        activations: Activations of one image.
        images: Number of images to come.
    """
    convolved = {node.output[0] for node in proto.graph.node if node.op_type == "Conv"}
    written = images * sum(array.nbytes for name, array in activations.items() if name in convolved)
    size = bytes_of_constants(proto)
    return 0 < _WORTH * size < written and size <= _LARGEST


def blocked_session(
    model: AnyModel,
    name: str,
    inputs: Mapping[str, Array],
    expected: Mapping[str, Array],
    threads: int | None = None,
    optimized: onnx.ModelProto | None = None,
) -> OnnxRuntimeSession | None:
    """Open a session that gives the model's activations with the same values in another order.

    Args:
        model: The model.
        name: What to call it in messages.
        inputs: One image.
        expected: The activations that the plain session gives for it; the new session's are compared with them.
        threads: Threads for one run; None leaves it to ONNX Runtime.
        optimized: What ONNX Runtime makes of the model with these activations as outputs, if that is known.

    Returns:
        The session; None if there is nothing to gain, or if the values differ.
    """
    try:
        blocked = without_reordering(optimized or optimized_session(model, name, list(expected), threads=1)[1])
        if blocked is None:
            return None
        session = OnnxRuntimeSession(blocked, name=name, threads=threads, spin=False, optimize=False)
        found = dict(zip(expected, session.run(inputs, list(expected)), strict=True))
        return session if _same_values(found, expected) else None
    except (BuildError, ModelError, NonFiniteError, OSError, onnx.checker.ValidationError):
        return None  # also if the model gives NaN, which the plain session then reports


def optimized_session(
    model: AnyModel, name: str, tensors: Sequence[str], threads: int | None
) -> tuple[OnnxRuntimeSession, onnx.ModelProto]:
    """A session of the model with these tensors as outputs, and the model as ONNX Runtime runs it.

    Raises:
        BuildError: ONNX Runtime cannot load the model, or cannot write what it made of it.
    """
    with tempfile.TemporaryDirectory(prefix="calib-") as folder:
        path = Path(folder) / "optimized.onnx"
        session = OnnxRuntimeSession(model, name=name, threads=threads, spin=False, optimized_path=path, also=tensors)
        return session, onnx.load_model(str(path))


def _same_values(found: Mapping[str, Array], expected: Mapping[str, Array]) -> bool:
    return all(_histogram(found[tensor]).equals(_histogram(array)) for tensor, array in expected.items())


def _histogram(values: Array) -> Histogram:
    histogram = Histogram()
    histogram.add(values)
    return histogram


def without_reordering(optimized: onnx.ModelProto) -> onnx.ModelProto | None:
    """Change a model so that it gives its convolutions' results in their own layout.

    Each `ReorderOutput` of a graph's output is removed, and so is the reordering back. Nodes that clip, rectify or add
    such tensors work on them as they are. The tensors keep their names. Tensors whose channels are padded to whole
    blocks stay in the usual order, because the padding is not part of their values.

    Args:
        optimized: What ONNX Runtime made of the model.

    Returns:
        The changed model; None if there is nothing to remove.
    """
    rewrite = _Rewrite(optimized)
    return rewrite.model() if rewrite.blocked else None


class _Rewrite:
    """Rewrites the nodes one by one, with a blocked twin for each tensor that has one."""

    def __init__(self, optimized: onnx.ModelProto) -> None:
        self._proto = optimized
        self._constants = scalar_constants(optimized)
        self.blocked: dict[str, int] = {}  # channels of the tensors that hold blocks, by the tensor's own name
        self._aliases: dict[str, str] = {}  # names in the optimised model that now mean another tensor
        self._nodes: list[onnx.NodeProto] = []
        self._plain: dict[str, str] = {}  # blocked tensor -> its twin in the usual order, if a node reads it
        sources = {node.output[0]: node for node in optimized.graph.node if _is(node, "ReorderOutput")}
        outputs = {value.name for value in optimized.graph.output}
        laid_out = self._channels_laid_out()
        self._taken = {
            node.input[0]: (name, _channels(node))
            for name, node in sources.items()
            if name in outputs and not _attribute(node, "channels_last")
            if laid_out.get(node.input[0], _channels(node)) == _channels(node)
        }
        for node in optimized.graph.node:
            self._add(node)

    def _add(self, node: onnx.NodeProto) -> None:
        if _is(node, "ReorderOutput") and node.output[0] in self.blocked:
            return
        if _is(node, "ReorderInput") and node.input[0] in self.blocked and not _attribute(node, "channels_last"):
            self._aliases[node.output[0]] = node.input[0]
            return
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if self._works_on_blocks(node):
            self.blocked[node.output[0]] = self.blocked[node.input[0]]
        elif node.domain != _DOMAIN and not self._taken.keys() & node.output:
            copy.input[:] = [self._in_usual_order(name) for name in node.input]
        copy.input[:] = [self._aliases.get(name, name) for name in copy.input]
        for i, name in enumerate(node.output):
            if name in self._taken:
                tensor, channels = self._taken[name]
                copy.output[i] = self._aliases[name] = tensor
                self.blocked[tensor] = channels
        self._nodes.append(copy)

    def _channels_laid_out(self) -> dict[str, int]:
        """Channels of the convolutions' results and of what is computed from them, padding included."""
        weights = {tensor.name: tensor.dims[0] for tensor in self._proto.graph.initializer if tensor.dims}
        channels: dict[str, int] = {}
        for node in self._proto.graph.node:
            if _is(node, "Conv") and node.input[1] in weights:
                channels[node.output[0]] = weights[node.input[1]]
            elif node.input and node.input[0] in channels and not _is(node, "ReorderOutput"):
                channels[node.output[0]] = channels[node.input[0]]
        return channels

    def _works_on_blocks(self, node: onnx.NodeProto) -> bool:
        """Whether a node gives the same values in any order of its inputs, so that its result may be in blocks."""
        if node.domain not in ("", "ai.onnx") or len(node.output) != 1:
            return False
        if rectifier_limit(node, self._constants) is not None:
            return node.input[0] in self.blocked
        channels = {self.blocked.get(name) for name in node.input}
        return node.op_type == "Add" and len(channels) == 1 and None not in channels

    def _in_usual_order(self, name: str) -> str:
        if name not in self.blocked:
            return name
        if name not in self._plain:
            self._plain[name] = f"{name}/channels_first"
            self._nodes.append(
                helper.make_node(
                    "ReorderOutput",
                    [name],
                    [self._plain[name]],
                    domain=_DOMAIN,
                    channels=self.blocked[name],
                    channels_last=0,
                )
            )
        return self._plain[name]

    def model(self) -> onnx.ModelProto:
        result = onnx.ModelProto()
        result.CopyFrom(self._proto)
        del result.graph.node[:]
        result.graph.node.extend(self._nodes)
        del result.graph.value_info[:]
        return result


def _is(node: onnx.NodeProto, kind: str) -> bool:
    return bool(node.domain == _DOMAIN and node.op_type == kind)


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), 0)


def _channels(node: onnx.NodeProto) -> int:
    return _attribute(node, "channels")
