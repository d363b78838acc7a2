import json

import pytest
from onnx import helper

from quant.tensorrt.engines.layers import graph_report

NODES = ["/conv/Conv", "/Relu", "/conv2/Conv", "/Add", "/Flatten", "/Constant"]


@pytest.fixture
def proto(graph_of):
    """A chain of nodes with the names above."""
    nodes = [helper.make_node("Identity", [f"t{i}"], [f"t{i + 1}"], name=name) for i, name in enumerate(NODES)]
    return graph_of(nodes, {"t0": [1]}, {"t6": [1]})


def layer(name, reads="", writes="", weights=None, kind="Convolution", metadata=""):
    entry = {"Name": name, "LayerType": kind, "Metadata": metadata}
    entry["Inputs"] = [{"Name": "i", "Format/Datatype": reads}] if reads else []
    entry["Outputs"] = [{"Name": "o", "Format/Datatype": writes}] if writes else []
    return entry | ({"Weights": weights} if weights else {})


def report(proto, *layers):
    return graph_report(json.dumps({"Layers": list(layers), "Bindings": []}), proto)


@pytest.mark.parametrize(
    ("entry", "precision"),
    [
        (layer("a", "Thirty-two wide channel vectorized row major Int8 format", "Row major linear FP32"), "int8"),
        (layer("a", "Row major linear FP32", weights={"Type": "Int8", "Count": 9}), "int8"),
        (layer("a", "Channel major FP16 format where channel % 8 == 0"), "fp16"),
        (layer("a", "Row major linear FP16 format", weights={"Type": "Half", "Count": 9}), "fp16"),
        (layer("a", "Row major linear FP32", weights={"Type": "Float", "Count": 0}), "fp32"),
        (layer("a", "", "Row major linear FP16 format"), "fp16"),
        (layer("a", "Row major Int32"), "int"),
        (layer("a"), "unknown"),
    ],
)
def test_precision_is_what_a_layer_computes_in(proto, entry, precision):
    assert report(proto, entry).layers[0].precision == precision


def test_fused_layers_name_their_onnx_nodes(proto):
    found = report(
        proto, layer("/conv/Conv + /Relu"), layer("PWN(/Add)"), layer("{ForeignNode[/conv2/Conv.../Flatten]}")
    )
    assert [entry.nodes for entry in found.layers] == [("/conv/Conv", "/Relu"), ("/Add",), ("/conv2/Conv", "/Flatten")]
    assert [entry.name for entry in found.fused] == ["/conv/Conv + /Relu", "{ForeignNode[/conv2/Conv.../Flatten]}"]
    assert found.pruned == ("/Constant",)


def test_name_that_is_part_of_another_is_not_taken_for_it(proto):
    assert report(proto, layer("/conv2/Conv")).layers[0].nodes == ("/conv2/Conv",)


def test_metadata_with_raw_control_characters_is_read(proto):
    metadata = "[ONNX Layer: /conv/Conv]\x1e[ONNX Layer: /Add]"
    text = f'{{"Layers": [{{"Name": "fused", "LayerType": "x", "Metadata": "{metadata}"}}]}}'
    (only,) = graph_report(text, proto).layers
    assert only.nodes == ("/conv/Conv", "/Add")


def test_copies_between_layouts_are_counted_apart(proto):
    copy = layer("Reformatting CopyNode for Input Tensor 0 to /conv/Conv", "FP32", "Int8", kind="Reformat")
    found = report(proto, copy, layer("/conv/Conv", "Int8"))
    assert found.precisions == {"int8": 1}
    document = found.document()
    assert (document["engine_layers"], document["reformats"], document["onnx_nodes"]) == (2, 1, 6)
    assert "/conv/Conv" not in document["pruned"]


def test_engine_that_was_built_without_details_gives_names_alone(proto):
    found = report(proto, "/conv/Conv + /Relu")
    assert found.layers[0].nodes == ("/conv/Conv", "/Relu")
    assert found.layers[0].precision == "unknown"
