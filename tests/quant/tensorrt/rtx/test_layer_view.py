"""Layers of real engines, as TensorRT for RTX says them while it builds, by the nodes of their model."""

import json

import numpy as np
import pytest
from onnx import helper

from quant.qdq.placement import Placement
from quant.qdq.writer import qdq_model_from_amax
from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.network import prepared_proto
from quant.tensorrt.engines.layers import graph_report


@pytest.fixture
def viewed(built, ones):
    """The layer view of the engine of a net with pairs, and the model that was built."""

    def view(net, placement=None):
        proto = qdq_model_from_amax(net, ones(net), placement or Placement())
        return graph_report(built(proto).layer_text, prepared_proto(proto, BatchRange(2, 2, 2), "net")), proto

    return view


@pytest.mark.parametrize("net", ["residual_net", "transformer"])
def test_every_node_has_a_layer_or_a_reason_and_both_ways_agree(viewed, request, net):
    report, proto = viewed(request.getfixturevalue(net))
    document = report.document()
    layers, nodes = document["layers"], document["nodes"]
    assert {node["name"] for node in nodes} >= {
        node.name for node in proto.graph.node if node.op_type in ("Conv", "MatMul")
    }
    for node in nodes:
        assert bool(node["layers"]) != bool(node["reason"]), node
        assert all(node["name"] in layers[i]["nodes"] for i in node["layers"])
    for i, layer in enumerate(layers):
        assert all(i in node["layers"] for node in nodes if node["name"] in layer["nodes"])
    assert sum(layer["precision"] == "unknown" for layer in layers) == 0


def test_products_are_int8_where_they_have_pairs_and_float_where_not(viewed, residual_net):
    report, _ = viewed(residual_net, Placement(float_nodes=frozenset({"conv2"})))
    runs_in = {view.name: view.precision for view in report.views}
    assert (runs_in["conv1"], runs_in["conv2"]) == ("int8", "fp32")
    layer = report.layers[next(view.layers[0] for view in report.views if view.name == "conv2")]
    assert dict(layer.tensors)  # with their types, of which a placement of pairs can be made
    report, _ = viewed(residual_net)
    assert {view.precision for view in report.views if view.name in ("conv1", "conv2")} == {"int8"}


def test_what_is_folded_is_said_to_be(viewed, graph_of, random):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w"], ["c"], name="conv"),
        helper.make_node("Shape", ["c"], ["s"], name="shape"),
        helper.make_node("Gather", ["s", "zero"], ["b"], name="batch"),
        helper.make_node("Unsqueeze", ["b", "axis"], ["u"], name="axis"),
        helper.make_node("Concat", ["u", "rest"], ["to"], name="to", axis=0),
        helper.make_node("Reshape", ["c", "to"], ["y"], name="flat"),
    ]
    constants = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1])}
    constants["w"] = random(4, 2, 1, 1)
    net = graph_of(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 64]}, constants)
    report, _ = viewed(net)
    reasons = {view.name: view.reason for view in report.views}
    assert reasons["shape"] == reasons["batch"] == reasons["to"] == "works on shapes, not on data"
    assert reasons["conv"] == ""


def test_the_description_beside_an_engine_holds_its_layers(rtx, residual_net, ones, saved):
    from quant.tensorrt.ahead_of_time import engine_ahead_of_time
    from quant.tensorrt.building.options import BuilderOptions

    model = saved(qdq_model_from_amax(residual_net, ones(residual_net)))
    made = engine_ahead_of_time(rtx, model, "int8", "8.9", BatchRange(2, 2, 2), BuilderOptions())
    graph = json.loads(made.description)["details"]["graph"]
    assert graph["engine_layers"] == len(graph["layers"]) > 0
    assert graph["precisions"]["int8"] > 0
