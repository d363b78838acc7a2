import types

import numpy as np
import onnx
import pytest
from onnx import helper

from calib.caches.cache import read_cache
from quant.errors import BuildError
from quant.settings.batch_range import BatchRange, SideRange
from quant.tensorrt.bindings import TensorRT
from quant.tensorrt.building.inner_tensors import inner_amax
from quant.tensorrt.building.network import prepared_proto


def shape_of(proto, i=0):
    return [dim.dim_value for dim in proto.graph.input[i].type.tensor_type.shape.dim]


def test_static_batch_is_written_into_a_copy_and_the_result_is_the_same(residual_net, run_onnx, random):
    prepared = prepared_proto(residual_net, BatchRange(4, 4, 4), "net")
    assert shape_of(prepared) == [4, 3, 8, 8]
    assert shape_of(residual_net)[0] == 0
    images = random(4, 3, 8, 8)
    np.testing.assert_array_equal(run_onnx(prepared, input=images)[0], run_onnx(residual_net, input=images)[0])


def test_range_leaves_the_batch_free(residual_net):
    assert shape_of(prepared_proto(residual_net, BatchRange(1, 4, 8), "net")) == [0, 3, 8, 8]


def test_every_node_gets_a_name_of_its_own(residual_net):
    names = [node.name for node in prepared_proto(residual_net, BatchRange(4, 4, 4), "net").graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("shape", "batch", "words"),
    [
        ([2, 3], BatchRange(4, 4, 4), "fixed batch 2, expected 4"),
        ([2, 3], BatchRange(1, 2, 4), "fixed batch 2, expected 1:2:4"),
        (["N", "H"], BatchRange(4, 4, 4), "axis 1 open"),
        ([], BatchRange(4, 4, 4), "no batch axis"),
    ],
)
def test_shapes_that_cannot_be_built_are_named(graph_of, shape, batch, words):
    proto = graph_of([helper.make_node("Relu", ["x"], ["y"])], {"x": shape}, {"y": shape})
    with pytest.raises(BuildError, match=f"input 'x'.*{words}"):
        prepared_proto(proto, batch, "net")


def test_model_with_that_fixed_batch_is_taken(graph_of):
    proto = graph_of([helper.make_node("Relu", ["x"], ["y"])], {"x": [2, 3]}, {"y": [2, 3]})
    assert shape_of(prepared_proto(proto, BatchRange(2, 2, 2), "net")) == [2, 3]


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2"])
def test_inner_tensors_of_a_gemm_get_the_scales_that_tensorrts_minmax_finds(shared, name):
    """The layers that TensorRT makes of the last Gemm, with the names in its own cache."""
    cache = read_cache(shared / "reference" / "tensorrt-8.6.0" / f"{name}.minmax.cache")
    inner = [tensor for tensor in cache.amax if tensor.startswith("(Unnamed Layer*")]
    proto = onnx.load(shared / "models" / f"{name}.onnx")
    gemm = next(node for node in proto.graph.node if node.op_type == "Gemm")
    found = inner_amax(
        *tensorrt_and_gemm_layers(gemm, inner), proto, {k: v for k, v in cache.amax.items() if k not in inner}
    )
    weight, product, bias, reshaped = inner
    for tensor in (weight, bias, reshaped):
        assert found[tensor] == pytest.approx(cache.amax[tensor], rel=1e-4)
    assert cache.amax[product] <= found[product] <= 1.2 * cache.amax[product]


def tensorrt_and_gemm_layers(gemm, names):
    kinds = types.SimpleNamespace(CONSTANT=1, MATRIX_MULTIPLY=2, SHUFFLE=3)
    tensorrt = TensorRT(
        types.SimpleNamespace(LayerType=kinds, DataType=types.SimpleNamespace(FLOAT=0, HALF=1)), "8.6.0"
    )

    def layer(kind, name, output, source=None):
        tensor = types.SimpleNamespace(name=output, dtype=0)
        entry = types.SimpleNamespace(type=kind, name=name, num_outputs=1)
        entry.get_output = lambda i: tensor
        entry.get_input = lambda i: types.SimpleNamespace(name=source)
        return entry

    layers = [
        layer(kinds.CONSTANT, gemm.input[1], names[0]),
        layer(kinds.MATRIX_MULTIPLY, gemm.name, names[1]),
        layer(kinds.CONSTANT, gemm.input[2], names[2]),
        layer(kinds.SHUFFLE, "reshape", names[3], source=names[2]),
    ]
    return tensorrt, types.SimpleNamespace(num_layers=len(layers), get_layer=lambda i: layers[i])


RANGES = BatchRange(1, 2, 4, (SideRange(8, 16, 32), SideRange(8, 16, 32)))


def relu(graph_of, *shapes):
    nodes = [helper.make_node("Relu", [f"x{i}"], [f"y{i}"]) for i in range(len(shapes))]
    named = {f"x{i}": shape for i, shape in enumerate(shapes)}
    return graph_of(nodes, named, {f"y{i}": shape for i, shape in enumerate(shapes)})


@pytest.mark.parametrize("shape", [["N", 3, "H", "W"], ["N", "H", "W", 3], ["N", 3, 16, "W"]])
def test_heights_and_widths_with_ranges_stay_open(graph_of, shape):
    height = SideRange(16, 16, 16) if 16 in shape else RANGES.sides[0]
    batch = BatchRange(1, 2, 4, (height, RANGES.sides[1]))
    assert shape_of(prepared_proto(relu(graph_of, shape), batch, "net")) == [
        size if isinstance(size, int) else 0 for size in shape
    ]


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([["N", 3, 16, "W"]], "input 'x0' has the fixed height 16, expected 8:16:32; give 16 for the height"),
        ([["N", 3, 16, 16]], "input 'x0' has the fixed height 16"),
        ([["N", "T"]], "expected an input of images whose height or width is open"),
        ([["N", "C", "H", "W"]], "axis 1 open"),
        ([["N", 3, "H", "W"], ["N", "T"]], "input 'x1': expected sizes on all axes but the batch, found axis 1 open"),
        ([[2, 3, "H", "W"]], "has the fixed batch 2, expected 1:2:4,8:16:32,8:16:32"),
    ],
)
def test_ranges_that_do_not_suit_the_inputs_are_named(graph_of, shapes, words):
    with pytest.raises(BuildError, match=words):
        prepared_proto(relu(graph_of, *shapes), RANGES, "net")
