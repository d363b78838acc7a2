"""Parts of shapes, which the parser of TensorRT 8.6 does not know."""

import numpy as np
import onnx
import pytest

from quant.onnx_graph.tracing import nodes_within
from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.network import prepared_proto


@pytest.mark.parametrize(
    "bounds",
    [
        "start = 2",
        "end = 2",
        "start = 1, end = 3",
        "start = -2",
        "end = -1",
        "start = -9, end = 9",
        "start = 3, end = 1",
    ],
)
def test_a_part_of_a_shape_becomes_a_slice_of_the_whole(run_onnx, random, bounds):
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3, 4, 5] x) => (float[A, B, C, D] y, int64[K] part)
        {{ y = Relu(x) [s] part = Shape <{bounds}> (y) }}"""
    )
    prepared = prepared_proto(proto, BatchRange(2, 2, 2), "model")
    onnx.checker.check_model(prepared, full_check=True)
    assert [node.op_type for node in prepared.graph.node] == ["Relu", "Shape", "Slice"]
    assert not prepared.graph.node[1].attribute
    assert prepared.graph.node[2].name == "s"
    x = random(2, 3, 4, 5)
    for found, expected in zip(run_onnx(prepared, x=x), run_onnx(proto, x=x), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_shapes_inside_branches_are_split_too_and_whole_ones_stay(run_onnx, random):
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3] x) => (int64[K] y, int64[2] shape_part_bound_1)
        { shape_part_bound_1 = Shape(x) size = Size(x) zero = Sub(size, size) no = Cast <to = 9> (zero)
          y = If(no) <then_branch = t () => (int64[A] a) { a = Shape(x) },
                      else_branch = e () => (int64[B] b) { b = Shape <start = 1> (x) }> }"""
    )
    prepared = prepared_proto(proto, BatchRange(2, 2, 2), "model")
    kinds = [node.op_type for node in nodes_within(prepared.graph)]
    assert kinds.count("Slice") == 1
    assert kinds.count("Shape") == 3
    x = random(2, 3)
    for found, expected in zip(run_onnx(prepared, x=x), run_onnx(proto, x=x), strict=True):
        np.testing.assert_array_equal(found, expected)
