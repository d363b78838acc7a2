"""Products that stay float do not keep others from INT8, and are named with the reason."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant.errors import BuildError
from quant.qdq.float_products import products_left_float
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.writer import qdq_model_from_amax, quantizable_tensors
from tests.int8_oracle import amax_of, int8_db, int8_of

n = helper.make_node
DOUBLE, HALF, INT64 = TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT64


def told(proto):
    left = products_left_float(prepared_for_quantization(proto))
    return left.text if left else ""


@pytest.fixture
def beside(graph_of, random):
    """Nodes that make `b` [N, 4] out of `a` [N, 4], between two products with weights."""

    def make(nodes, constants=None, *, opset=17, domain=""):
        constants = {"w": random(6, 4, seed=1) / 2, "v": random(4, 3, seed=2), **(constants or {})}
        first, last = n("MatMul", ["x", "w"], ["a"], name="first"), n("MatMul", ["b", "v"], ["y"], name="last")
        proto = graph_of([first, *nodes, last], {"x": ["N", 6]}, {"y": ["N", 3]}, constants, opset=opset)
        if domain:
            proto.opset_import.append(helper.make_opsetid(domain, 1))
        return proto

    return make


def cast(source, result, kind):
    return n("Cast", [source], [result], to=kind)


def typed(kind, *products):
    return [cast("a", "ta", kind), *products, cast("tb", "b", TensorProto.FLOAT)]


MATRIX = np.random.default_rng(5).normal(size=(4, 4))


@pytest.mark.parametrize(
    ("nodes", "constants", "reason"),
    [
        (
            [
                n("Mul", ["a", "ten"], ["m"]),
                *[cast("m", "ta", INT64), n("MatMul", ["ta", "c"], ["tb"]), cast("tb", "b", TensorProto.FLOAT)],
            ],
            {"c": np.eye(4, dtype=np.int64), "ten": np.float32(10)},
            "MatMul",
        ),
        (typed(DOUBLE, n("MatMul", ["ta", "c"], ["tb"])), {"c": MATRIX}, "MatMul"),
        (typed(DOUBLE, n("Gemm", ["ta", "c"], ["tb"], alpha=0.5)), {"c": MATRIX}, "MatMul"),
        (typed(HALF, n("MatMul", ["ta", "c"], ["tb"])), {"c": MATRIX.astype(np.float16)}, "MatMul"),
        (
            typed(
                HALF,
                n("Transpose", ["ta"], ["tt"]),
                n("MatMul", ["tt", "ta"], ["g"]),
                n("MatMul", ["ta", "g"], ["tb"]),
            ),
            {},
            "MatMul",
        ),
    ],
)
def test_products_of_other_types_stay_and_float32_ones_are_quantized(beside, random, nodes, constants, reason):
    proto = beside(nodes, constants)
    count = sum(node.op_type in ("MatMul", "Gemm", "Conv") for node in nodes)
    assert told(proto) == (f"{count} of {count + 2} products stay float: {count} {reason} of another type than float32")
    assert quantizable_tensors(proto) == ["x", "b"]
    inputs = {"x": random(32, 6)}
    quantized = int8_of(proto, inputs)
    assert [node.op_type for node in quantized.graph.node].count("QuantizeLinear") == 2
    assert int8_db(proto, inputs) > 25


def test_the_weights_of_a_half_product_whose_data_has_an_unknown_type_tell_it(beside):
    """Type inference knows nothing of what an operator of another domain gives."""
    nodes = [
        cast("a", "h", HALF),
        n("FastGelu", ["h"], ["g"], domain="com.microsoft"),
        n("MatMul", ["g", "c"], ["t"]),
        cast("t", "b", TensorProto.FLOAT),
    ]
    proto = beside(nodes, {"c": MATRIX.astype(np.float16)}, domain="com.microsoft")
    assert quantizable_tensors(proto) == ["x", "b"]
    assert told(proto) == "1 of 3 products stay float: 1 MatMul of another type than float32"


def inner(nodes, constants=None, result="r"):
    return helper.make_graph(
        nodes,
        "inner",
        [],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )


KERNEL = np.ones((2, 2), np.float32)
FLAG = {"flag": np.array(True), "four": np.ones((4, 4), np.float32)}


def either(then, other, result="b"):
    return n("If", ["on"], [result], then_branch=then, else_branch=other)


def switch():
    """A condition that depends on the data, so that nothing folds it."""
    return [n("ReduceMax", ["x"], ["peak"], keepdims=0), n("Greater", ["peak", "zero"], ["on"])]


def test_products_in_branches_are_counted_however_deep(beside, random):
    one, two = n("MatMul", ["a", "four"], ["r"]), [n("MatMul", ["a", "four"], ["s"]), n("MatMul", ["s", "four"], ["r"])]
    deep = inner([either(inner([one]), inner([n("Relu", ["a"], ["r"])]), "r")])
    proto = beside([*switch(), either(deep, inner(two))], {**FLAG, "zero": np.float32(0)})
    assert told(proto) == "3 of 5 products stay float: 3 MatMul in If"
    assert int8_db(proto, {"x": random(32, 6)}) > 25


def loop(constants):
    """Two turns, each with a product of the state and a matrix."""
    body = helper.make_graph(
        [n("MatMul", ["state", "four"], ["next"]), n("Identity", ["on"], ["still"])],
        "body",
        [
            helper.make_tensor_value_info("turn", INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []), helper.make_tensor_value_info("next", 1, None)],
    )
    constants |= {"two": np.array(2), "true": np.array(True), "four": np.eye(4, dtype=np.float32)}
    return n("Loop", ["two", "true", "a"], ["b"], body=body)


def scan():
    body = helper.make_graph(
        [n("Gemm", ["row", "four"], ["t"]), n("Add", ["t", "state"], ["next"]), n("Identity", ["t"], ["seen"])],
        "body",
        [helper.make_tensor_value_info(name, 1, None) for name in ("state", "row")],
        [helper.make_tensor_value_info(name, 1, None) for name in ("next", "seen")],
    )
    return n("Scan", ["start", "rows"], ["total", "seen"], body=body, num_scan_inputs=1)


def test_products_in_loops_and_scans_are_named(beside, random):
    constants = {"start": np.zeros((1, 4), np.float32)}
    nodes = [
        loop(constants),
        n("Unsqueeze", ["a", "axis"], ["rows"]),
        scan(),
    ]
    proto = beside(nodes, {**constants, "axis": np.array([1])})
    assert told(proto) == "2 of 4 products stay float: 1 MatMul in Loop, 1 Gemm in Scan"
    assert int8_db(proto, {"x": random(32, 6)}) > 25


@pytest.mark.parametrize("op_type", ["If", "Loop"])
def test_where_all_are_inside_the_message_does_not_say_that_there_are_none(graph_of, op_type):
    constants = {"four": np.eye(4, dtype=np.float32), "zero": np.float32(0), "turns": np.array(2)}
    product = inner([n("MatMul", ["a", "four"], ["r"])])
    nodes = [loop(constants)] if op_type == "Loop" else [*switch(), either(product, product)]
    nodes = [n("Relu", ["x"], ["a"]), *nodes, n("Neg", ["b"], ["y"])]
    proto = graph_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, constants)
    with pytest.raises(
        BuildError, match=rf"none of the model's products can be quantized: .* MatMul in {op_type}; use"
    ):
        qdq_model_from_amax(proto, {})


def test_a_model_without_products_is_told_so(graph_of):
    with pytest.raises(BuildError, match="the model has no Conv, ConvTranspose, Gemm, MatMul to quantize"):
        qdq_model_from_amax(graph_of([n("Relu", ["x"], ["y"])], {"x": [2]}, {"y": [2]}), {})


MICROSOFT = "com.microsoft"


def fused(op_type, **attributes):
    return n(op_type, ["a", "c"], ["b"], domain=MICROSOFT, **attributes)


@pytest.mark.parametrize(
    ("node", "constants", "domain", "opset"),
    [
        (n("Einsum", ["a", "c"], ["b"], equation="nk,kj->nj"), {"c": KERNEL.repeat(2, 0).repeat(2, 1)}, "", 17),
        (fused("FusedMatMul", transB=1), {"c": np.ones((4, 4))}, MICROSOFT, 17),
        (fused("FusedGemm", activation="Relu"), {"c": np.ones((4, 4))}, MICROSOFT, 17),
        (n("Attention", ["q", "q", "q"], ["b"], q_num_heads=1, kv_num_heads=1), {}, "", 23),
    ],
)
def test_products_of_other_operators_are_named(beside, node, constants, domain, opset):
    nodes = [node]
    if node.op_type == "Attention":  # of a sequence of one
        if onnx.defs.onnx_opset_version() < opset:
            pytest.skip("this onnx does not know Attention")
        nodes = [n("Unsqueeze", ["a", "axis"], ["q"]), node]
        node.output[0] = "att"
        nodes.append(n("Squeeze", ["att", "axis"], ["b"]))
        constants = {"axis": np.array([1])}
    given = {name: np.asarray(c, np.float32) if c.dtype.kind == "f" else c for name, c in constants.items()}
    proto = beside(nodes, given, domain=domain, opset=opset)
    assert told(proto) == f"1 of 3 products stay float: 1 {node.op_type}"
    assert quantizable_tensors(proto) == ["x", "b"]


def test_fused_convolutions_and_recurrent_layers_are_named(graph_of, random):
    nodes = [
        n("FusedConv", ["x", "w"], ["c"], domain="com.microsoft", activation="Relu"),
        n("Conv", ["c", "w"], ["d"]),
        n("Reshape", ["d", "to"], ["s"]),
        n("GRU", ["s", "gw", "gr"], ["g"], hidden_size=2),
        n("LSTM", ["s", "lw", "lr"], ["y"], hidden_size=2),
    ]
    constants = {"w": random(3, 3, 1, 1), "gw": random(1, 6, 12), "gr": random(1, 6, 2), "to": np.array([4, -1, 12])}
    constants |= {"lw": random(1, 8, 12), "lr": random(1, 8, 2)}
    proto = graph_of(nodes, {"x": ["N", 3, 4, 4]}, {"y": None, "g": None}, constants)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert told(proto) == "3 of 4 products stay float: 1 FusedConv, 1 GRU, 1 LSTM"
    assert quantizable_tensors(proto) == ["c"]


def test_a_product_of_another_domain_is_not_taken_for_onnx_s_own(beside):
    node = n("MatMul", ["a", "c"], ["b"], domain="my.own")
    proto = beside([node], {"c": np.ones((4, 4), np.float32)}, domain="my.own")
    assert quantizable_tensors(proto) == ["x", "b"]
    quantized = qdq_model_from_amax(proto, {"x": 1.0, "b": 1.0})
    (own,) = (found for found in quantized.graph.node if found.domain == "my.own")
    assert list(own.input) == ["a", "c"]


def test_nothing_is_said_where_all_products_are_quantized(residual_net, random):
    assert told(residual_net) == ""
    assert amax_of(residual_net, {"input": random(2, 3, 8, 8)}).keys() == set(quantizable_tensors(residual_net))
