"""Every form of explicit model that the toolkit writes, parsed and built by a real TensorRT of today.

TensorRT for RTX has strongly typed networks alone, as TensorRT 11 has, and builds them on any CPU. Nothing is run: that
takes a GPU. Where it refuses a model, the error names the node and gives NVIDIA's words.
"""

import numpy as np
import onnx
import pytest
from onnx import compose, helper

from calib.algorithms import MinMax
from calib.caches.cache import cache_from_amax
from quant.errors import BuildError
from quant.onnx_graph.half_precision import half_model
from quant.onnx_graph.model import load_model
from quant.qdq.half_pairs import half_qdq_model
from quant.qdq.placement import Placement
from quant.qdq.rules import ALL_RULES
from quant.qdq.writer import qdq_model_from_amax
from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.build_job import BuildJob
from quant.tensorrt.building.explicit import ExplicitBuilds
from quant.tensorrt.building.network import prepared_proto
from quant.tensorrt.building.open_axes import with_sizes
from quant.tensorrt.building.options import BuilderOptions
from quant.tensorrt.log import log_section
from tests import colour_project, detector_project
from tests.quant.tensorrt.rtx.explicit_graphs import GRAPHS

n = helper.make_node
PAIRS = ("QuantizeLinear", "DequantizeLinear")


def groups(most):
    """Names of graphs of one opset, at most so many together."""
    opsets = {name: graph.opset_import[0].version for name, graph in GRAPHS.items()}
    for opset in sorted(set(opsets.values())):
        names = [name for name in GRAPHS if opsets[name] == opset]
        yield from (names[i : i + most] for i in range(0, len(names), most))


def forms(proto, ones, placement=None):
    """The four that a model is built in, by name."""
    quantized = qdq_model_from_amax(proto, ones(proto), placement or Placement())
    assert {node.op_type for node in quantized.graph.node} >= set(PAIRS)
    return {"fp32": proto, "fp16": half_model(proto), "int8": quantized, "int8 fp16": half_qdq_model(quantized)}


@pytest.mark.parametrize("names", list(groups(10)), ids=lambda names: f"{names[0]} to {names[-1]}")
def test_graphs_are_built_as_floats_and_with_pairs(built, ones, names):
    """Side by side in one model, whose nodes an error names with their graph: a build by itself takes as long."""
    whole = onnx.ModelProto()
    for name in names:
        part = compose.add_prefix(GRAPHS[name], f"{name}: ")
        whole.graph.MergeFrom(part.graph)
    whole.ir_version, whole.graph.name = part.ir_version, "graphs"
    whole.opset_import.extend(part.opset_import)
    found = forms(whole, ones)
    read = [node.input[0] for node in found["int8"].graph.node if node.op_type in PAIRS]
    assert [name for name in names if not any(tensor.startswith(f"{name}: ") for tensor in read)] == []
    for precision, proto in found.items():
        assert built(proto).data, precision


@pytest.mark.parametrize("results", [False, True])
@pytest.mark.parametrize("net", ["residual_net", "moving_shortcut", "transformer"])
def test_a_net_is_built_with_pairs_before_its_products_and_on_results(built, ones, request, net, results):
    for precision, proto in forms(request.getfixturevalue(net), ones, Placement(results=results)).items():
        assert built(proto).data, precision


def test_a_block_with_joins_gates_and_silu_is_built_by_the_rules(built, graph_of, random, ones):
    """As in YOLO and EfficientNet: Split, Concat with one scale, squeeze-excite, nearest Resize."""
    nodes = [
        n("Conv", ["x", "w"], ["c"], name="first"),
        n("Sigmoid", ["c"], ["cg"]),
        n("Mul", ["c", "cg"], ["s"]),
        n("Split", ["s", "halves"], ["left", "right"], axis=1),
        n("Conv", ["right", "v"], ["d"], name="inner"),
        n("HardSwish", ["d"], ["t"]),
        n("Add", ["right", "t"], ["r"]),
        n("Concat", ["left", "right", "r"], ["j"], axis=1),
        n("GlobalAveragePool", ["j"], ["p"]),
        n("Sigmoid", ["p"], ["g"]),
        n("Mul", ["j", "g"], ["m"]),
        n("Resize", ["m", "", "scales"], ["up"], mode="nearest"),
        n("Conv", ["up", "u"], ["y"], name="last"),
    ]
    constants = {
        "w": random(16, 3, 3, 3),
        "v": random(8, 8, 1, 1),
        "u": random(8, 24, 1, 1),
        "halves": np.array([8, 8]),
    }
    constants |= {"scales": np.array([1, 1, 2, 2], np.float32)}
    proto = graph_of(nodes, {"x": ["N", 3, 16, 16]}, {"y": None}, constants)
    for precision, form in forms(proto, ones, Placement(rules=ALL_RULES)).items():
        assert built(form).data, precision


def test_what_tensorrt_11_would_try_is_built(rtx, built, residual_net, ones, monkeypatch):
    """TensorRT for RTX has its API, and takes all types from the model as it does."""
    monkeypatch.setattr("quant.tensorrt.building.explicit.load_tensorrt", lambda: rtx)
    cache = cache_from_amax(ones(residual_net), MinMax())
    size = BatchRange(2, 2, 2)
    tries = ExplicitBuilds(residual_net, cache, size, BuilderOptions(), "net", lambda line: None, frozenset())
    attempts = tries.attempts(None)
    assert [attempt.half for attempt in attempts] == [True, False]  # the rules change nothing in this net
    for attempt in attempts:
        model = tries.quantized(attempt)
        kinds = {tensor.data_type for tensor in model.graph.initializer}
        assert (onnx.TensorProto.FLOAT16 in kinds) is attempt.half
        assert built(model).data


@pytest.fixture(scope="module")
def samples(demo_master, tmp_path_factory):
    """The embedded samples, and the models of the projects that tests run, with sizes on their open axes."""
    from calib.sample_project import write_sample_project

    folder = tmp_path_factory.mktemp("samples")
    write_sample_project(folder / "scenes", "detect")
    colour_project.write_model(folder / "colours.onnx", size=None)
    detector_project.write_model(folder / "squares.onnx")
    colours, squares = (load_model(folder / name) for name in ("colours.onnx", "squares.onnx"))
    return {
        "digits": load_model(demo_master / "model.onnx"),
        "scenes": load_model(folder / "scenes" / "model.onnx"),
        "colours": with_sizes(colours, {"input": (3, 8, 12)}),
        "squares": with_sizes(squares, {"images": (3, 64, 64)}),
    }


@pytest.mark.parametrize("name", ["digits", "scenes", "colours", "squares"])
def test_a_sample_is_built(built, ones, samples, name):
    for precision, proto in forms(samples[name].proto, ones).items():
        assert built(proto).data, precision


def test_the_parser_keeps_every_pair(rtx, ones, residual_net):
    quantized = prepared_proto(qdq_model_from_amax(residual_net, ones(residual_net)), BatchRange(2, 2, 2), "net")
    with log_section() as log:
        job = BuildJob(rtx, quantized, "int8", BatchRange(2, 2, 2), BuilderOptions(), log, capability="8.9")
    kinds = [job.network.get_layer(i).type for i in range(job.layers)]
    expected = [sum(node.op_type == kind for node in quantized.graph.node) for kind in PAIRS]
    assert [kinds.count(rtx.module.LayerType.QUANTIZE), kinds.count(rtx.module.LayerType.DEQUANTIZE)] == expected


def test_a_batch_may_be_a_range(rtx, ones, residual_net):
    from quant.tensorrt.building.builder import engine_from_onnx

    quantized = qdq_model_from_amax(residual_net, ones(residual_net))
    sizes = BatchRange(1, 4, 8)
    assert engine_from_onnx(quantized, "int8", sizes, BuilderOptions(), tensorrt=rtx, capability="12.0").data


def test_an_operator_that_it_does_not_have_is_named(built, graph_of):
    nodes = [n("Relu", ["x"], ["r"]), n("Det", ["r"], ["y"], name="determinant")]
    proto = graph_of(nodes, {"x": ["N", 3, 3]}, {"y": ["N"]})
    with pytest.raises(BuildError, match=r"cannot read node 'determinant' \(Det\): UNSUPPORTED_NODE"):
        built(proto)


def test_a_pair_that_it_refuses_is_named_with_its_words(built, ones, residual_net):
    quantized = qdq_model_from_amax(residual_net, ones(residual_net))
    zero_point = next(node for node in quantized.graph.node if node.op_type == "QuantizeLinear").input[2]
    for tensor in quantized.graph.initializer:
        if tensor.name == zero_point:
            tensor.CopyFrom(helper.make_tensor(zero_point, onnx.TensorProto.INT8, [], [3]))
    with pytest.raises(BuildError, match=r"node '.+' \(QuantizeLinear\): .*Non-zero zero point is not supported"):
        built(quantized)


@pytest.mark.parametrize("capability", ["9.0", "8.10", "", "SM89"])
def test_a_capability_that_it_does_not_know_is_told_with_those_that_it_does(built, residual_net, capability):
    with pytest.raises(BuildError, match=rf"builds for 7\.5, .*8\.9, 12\.0.*, found '{capability}'"):
        built(residual_net, capability)
