"""Height and width that a model leaves open are fixed for a build by the data; the rest of the model stays as it is."""

import numpy as np
import pytest
from onnx import helper

from quant.errors import BuildError
from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.network import prepared_proto
from quant.tensorrt.building.open_axes import has_open_axes, with_sizes

BATCH = BatchRange(2, 2, 2)


@pytest.fixture
def open_net(graph_of, random, saved):
    """An upsampling net of any height and width, with an exporter's shape arithmetic, and a second input."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Shape", ["c"], ["shape"], start=2),
        helper.make_node("Add", ["shape", "shape"], ["doubled"]),
        helper.make_node("Shape", ["c"], ["front"], end=2),
        helper.make_node("Concat", ["front", "doubled"], ["sizes"], axis=0),
        helper.make_node("Resize", ["c", "", "", "sizes"], ["r"], mode="nearest"),
        helper.make_node("Add", ["r", "shift"], ["y"]),
    ]
    inputs = {"x": ["N", 3, "h", "w"], "shift": ["N", 40, 1, 1]}
    proto = graph_of(nodes, inputs, {"y": ["N", 40, "H", "W"]}, {"w": random(40, 3, 3, 3)})
    proto.graph.value_info.append(helper.make_tensor_value_info("c", 1, ["N", 40, "h", "w"]))
    return saved(proto)


def dims(proto, i=0):
    return [dim.dim_value for dim in proto.graph.input[i].type.tensor_type.shape.dim]


def test_sizes_fix_the_axes_in_a_copy_and_nothing_else(open_net, random, run_onnx):
    fixed = with_sizes(open_net, {"x": (3, 6, 10), "shift": (40, 1, 1)})
    assert has_open_axes(open_net)
    assert not has_open_axes(fixed)
    assert open_net.inputs[0].shape == ("N", 3, "h", "w")
    assert (fixed.path, fixed.sha256) == (open_net.path, open_net.sha256)
    assert list(fixed.graph.graph.node) == list(open_net.graph.graph.node)
    assert fixed.light.weights["w"] is open_net.light.weights["w"]  # 1080 values: beside the graph, and not copied
    images, shift = random(2, 3, 6, 10), random(2, 40, 1, 1, seed=1)
    (expected,) = run_onnx(open_net.proto, x=images, shift=shift)
    assert expected.shape == (2, 40, 12, 20)
    np.testing.assert_array_equal(run_onnx(fixed.proto, x=images, shift=shift)[0], expected)


@pytest.mark.parametrize(("batch", "first"), [(BATCH, 2), (BatchRange(1, 2, 4), 0)])
def test_the_parser_gets_every_size_but_that_of_a_free_batch(open_net, batch, first):
    prepared = prepared_proto(with_sizes(open_net, {"x": (3, 6, 10)}).proto, batch, "net")
    assert (dims(prepared), dims(prepared, 1)) == ([first, 3, 6, 10], [first, 40, 1, 1])


def test_axes_that_the_model_fixes_are_not_touched(graph_of, saved):
    proto = graph_of([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 3, 48, "w"]}, {"y": ["N", 3, 48, "w"]})
    fixed = with_sizes(saved(proto), {"x": (3, 48, 320)})
    assert fixed.inputs[0].shape == ("N", 3, 48, 320)


def test_a_sample_of_another_rank_is_named(open_net):
    with pytest.raises(BuildError, match=r"input 'x': expected 3 axes besides the batch, found 2 \(\[6, 10\]\)"):
        with_sizes(open_net, {"x": (6, 10)})


def test_without_sizes_the_user_is_told_how_to_state_them_and_not_to_export_again(open_net):
    with pytest.raises(
        BuildError, match=r"input 'x': .* found axis 2 open; state the size with --input-size"
    ) as caught:
        prepared_proto(open_net.proto, BATCH, "net")
    assert "export" not in str(caught.value)
