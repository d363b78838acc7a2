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


def test_a_region_that_is_named_by_its_ends_holds_what_no_other_layer_has(graph_of):
    """As TensorRT 8.6 names what it compiles as a whole; an end may be a constant of its own."""
    names = ["stem", "norm", "query", "gelu", "head", "classify"]
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], name=name) for i, name in enumerate(names)]
    proto = graph_of(nodes, {"t0": [1]}, {"t6": [1]})
    body = layer("{ForeignNode[(Unnamed Layer* 7) [Shuffle] + norm...head]}", "Row major linear FP16 format")
    found = report(proto, layer("stem"), body, layer("classify"))
    assert [entry.nodes for entry in found.layers] == [("stem",), ("norm", "query", "gelu", "head"), ("classify",)]
    assert found.pruned == ()
    open_end = layer("{ForeignNode[query...ONNXTRT_Broadcast_12]}")
    found = report(proto, layer("stem"), layer("norm"), open_end, layer("classify"))
    assert found.layers[2].nodes == ("query", "gelu", "head")


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("/conv/Conv + /Add + /Relu", ("/conv/Conv", "/Relu", "/Add")),
        ("PWN(PWN(/conv2/Conv), /Add)", ("/conv2/Conv", "/Add")),
        ("/Flatten + (Unnamed Layer* 9) [Shuffle]", ("/Flatten",)),
        ("Reformatting CopyNode for Input Tensor 0 to /conv/Conv + /Relu", ()),
        ("/Add_output_0 copy", ()),
    ],
)
def test_names_that_tensorrt_8_6_joins_and_wraps(proto, name, nodes):
    kind = "Reformat" if "opy" in name else "CaskConvolution"
    assert report(proto, layer(name, kind=kind)).layers[0].nodes == nodes


def test_both_ways_between_nodes_and_layers(proto):
    document = report(proto, layer("/conv/Conv + /Relu", "Int8"), layer("/conv2/Conv", "Row major FP16")).document()
    assert [entry["nodes"] for entry in document["layers"]] == [["/conv/Conv", "/Relu"], ["/conv2/Conv"]]
    rows = {row["name"]: (row["layers"], row["precision"], row["reason"]) for row in document["nodes"]}
    assert rows["/Relu"] == ([0], "int8", None)
    assert rows["/conv2/Conv"] == ([1], "fp16", None)
    assert rows["/Add"] == ([], None, "changes the shape alone, which moves nothing")  # all are Identity here


def test_why_a_node_has_no_layer(graph_of, random):
    n = helper.make_node
    nodes = [
        n("Transpose", ["w"], ["v"], name="turned"),
        n("MatMul", ["x", "v"], ["m"], name="product"),
        n("Relu", ["m"], ["r"], name="relu"),
        n("Relu", ["m"], ["lost"], name="lost"),
        n("Shape", ["r"], ["s"], name="size"),
        n("Reshape", ["r", "s"], ["f"], name="flat"),
        n("Concat", ["f", "m"], ["y"], name="join", axis=1),
    ]
    proto = graph_of(nodes, {"x": [2, 4]}, {"y": [2, 8]}, {"w": random(4, 4)})
    reasons = {view.name: view.reason for view in report(proto, layer("product")).views}
    assert reasons == {
        "turned": "computed from constants when the engine was built",
        "product": "",
        "relu": "TensorRT does not name it; 'product' before it has a layer",
        "lost": "no output needs it",
        "size": "works on shapes, not on data",
        "flat": "changes the shape alone, which moves nothing",
        "join": "what it joins is written to one place",
    }


def test_tensors_that_an_engine_holds_in_int8(proto):
    first = layer("/conv/Conv", "Row major linear FP32", "Thirty-two wide channel vectorized row major Int8 format")
    first["Outputs"][0]["Name"] = "a"
    rtx = {"Name": "b", "LayerType": "kgen", "Inputs": [{"Name": "c", "Datatype": "Int8", "Format": "(NHWC)"}]}
    assert report(proto, first, rtx).int8_tensors == {"a", "c"}
