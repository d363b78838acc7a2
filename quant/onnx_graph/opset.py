"""Another version of the operator set, with the meaning and the names of the model that was given.

ONNX's converter changes two things on the way. It gives a Resize that was an Upsample, or a Resize of opset 10, the
coordinates of opset 11, though the old ones were asymmetric. And it renames results of nodes that it replaces.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import numpy_helper

from quant.errors import BuildError
from quant.onnx_graph.light_model import AnyModel, LightModel, light_model
from quant.onnx_graph.model import opset_of
from quant.onnx_graph.tracing import constant_tensors, inner_graphs

_ASYMMETRIC_UNTIL = 10  # Resize and Upsample knew no other coordinates


def converted(model: AnyModel, opset: int) -> LightModel:
    """The model in a later opset.

    Args:
        model: The model; not edited.
        opset: The version wanted.

    Raises:
        BuildError: ONNX cannot convert it.
    """
    light = light_model(model)
    proto = light.proto
    before = opset_of(proto)
    try:
        result = onnx.version_converter.convert_version(proto, opset)
    except Exception as error:  # the converter raises RuntimeError and others of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BuildError(
            f"opset {before} cannot be converted to {opset}, which INT8 needs ({reason}); "
            "export the model with opset 17"
        ) from error
    if before <= _ASYMMETRIC_UNTIL:
        _make_asymmetric(result.graph, {})
    _restore_names(proto, result)
    return LightModel(result, light.weights)


def _make_asymmetric(graph: onnx.GraphProto, outer: Mapping[str, onnx.TensorProto]) -> None:
    """Write the old coordinates into each Resize; `outer` holds the constants of the graphs around this one."""
    constants = {**outer, **constant_tensors(graph)}
    for node in graph.node:
        if node.op_type == "Resize":
            _write_coordinates(node, constants)
        for inner in inner_graphs(node):
            _make_asymmetric(inner, constants)


def _write_coordinates(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    """The nearest value was the one before, and in a smaller picture the one after."""
    scales = constants.get(node.input[2]) if len(node.input) > 2 else None
    shrinks = scales is not None and bool((numpy_helper.to_array(scales) < 1).any())
    kept = [a for a in node.attribute if a.name not in ("coordinate_transformation_mode", "nearest_mode")]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
    node.attribute.append(onnx.helper.make_attribute("nearest_mode", "ceil" if shrinks else "floor"))


def _restore_names(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Give results the names that they had: a node that gives the same tensor as before reads the same tensors."""
    known, now = _names(before), _names(after)
    readers = {node.output[0]: node for node in after.graph.node if node.output}
    renamed: dict[str, str] = {}
    for node in before.graph.node:
        twin = readers.get(node.output[0]) if node.output else None
        if twin is None or twin.op_type != node.op_type:
            continue
        for old, new in zip(node.input, twin.input, strict=False):
            if old and new and old not in now and new not in known:
                renamed[new] = old
    for node in after.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for value in after.graph.value_info:
        value.name = renamed.get(value.name, value.name)


def _names(proto: onnx.ModelProto) -> set[str]:
    graph = proto.graph
    return {
        *(name for node in graph.node for name in (*node.input, *node.output)),
        *(value.name for value in (*graph.input, *graph.output)),
        *(tensor.name for tensor in graph.initializer),
    }
