"""Which tensors stay INT8 between the kernels of a convolutional net, rule by rule."""

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from quant.onnxruntime.session import OnnxRuntimeSession
from quant.qdq.placement import Placement
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.rules import ALL_RULES, RULES, small_products
from quant.qdq.work import macs_by_product, share_of_work
from quant.qdq.writer import qdq_model_from_amax, quantizable_tensors
from quant.recovery.inner_values import with_tensors
from tests.qdq_walk import Walk

n = helper.make_node


def silu(x, y):
    """SiLU as exporters write it."""
    return [n("Sigmoid", [x], [f"{y}_gate"], name=f"{y}_sigmoid"), n("Mul", [x, f"{y}_gate"], [y], name=f"{y}_silu")]


def placed(proto, ones, *rules, amax=None, **options):
    """The Q/DQ model by some rules: nodes by name, the walk, and the amax of each quantized tensor."""
    placement = Placement(rules=frozenset(rules), **options)
    walk = Walk(qdq_model_from_amax(proto, ones(proto) | (amax or {}), placement))
    found = {
        node.input[0]: float(walk.constants[node.input[1]]) * 127
        for node in walk.nodes
        if node.op_type == "QuantizeLinear"
    }
    return {node.name: node for node in walk.nodes}, walk, found


def reads_int8(walk, node):
    return [walk.is_activation_pair(name) for name in node.input]


@pytest.fixture
def two_convolutions(graph_of, random):
    """A convolution, some nodes between `a` and `b`, and a second convolution."""

    def make(*between):
        nodes = [n("Conv", ["x", "w"], ["a"], name="first"), *between, n("Conv", ["b", "v"], ["y"], name="second")]
        constants = {"w": random(4, 3, 1, 1), "v": random(4, 4, 1, 1), "scales": np.array([1, 1, 2, 2], np.float32)}
        return graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": None}, constants)

    return make


def test_each_rule_says_why():
    assert all(len(rule.reason) > 40 for rule in RULES.values())
    assert set(RULES) == ALL_RULES


def test_a_convolution_before_silu_writes_int8(two_convolutions, ones):
    net = two_convolutions(*silu("a", "b"))
    by_name, walk, found = placed(net, ones, "activations")
    assert set(found) == {"x", "a", "b"}
    assert reads_int8(walk, by_name["b_sigmoid"]) == [True]
    assert reads_int8(walk, by_name["b_silu"]) == [True, False]  # the gate itself exists in no memory
    assert set(placed(net, ones)[2]) == {"x", "b"}


@pytest.mark.parametrize(
    ("op_type", "held"), [("HardSwish", True), ("Relu", False), ("LeakyRelu", False), ("Sigmoid", False)]
)
def test_activations_that_fuse_keep_what_is_inside(two_convolutions, ones, op_type, held):
    found = placed(two_convolutions(n(op_type, ["a"], ["b"])), ones, "activations")[2]
    assert ("a" in found) is held


def test_an_activation_of_a_float_convolution_reads_floats(two_convolutions, ones):
    net = two_convolutions(*silu("a", "b"))
    found = placed(net, ones, *ALL_RULES, float_nodes=frozenset({"first"}))[2]
    assert set(found) == {"b"}


def test_what_squeeze_excite_pools_and_gates_is_int8(two_convolutions, ones):
    net = two_convolutions(
        *silu("a", "s"),
        n("GlobalAveragePool", ["s"], ["p"], name="pool"),
        n("HardSigmoid", ["p"], ["g"], name="gate"),
        n("Mul", ["s", "g"], ["b"], name="product"),
    )
    by_name, walk, found = placed(net, ones, "gates")
    assert set(found) == {"x", "s", "b"}
    assert reads_int8(walk, by_name["pool"]) == [True]
    assert reads_int8(walk, by_name["product"]) == [True, False]


def test_a_join_and_what_it_joins_have_the_scale_of_the_join(graph_of, random, ones):
    """As in the blocks of YOLO: parts of a Split, what was made of one of them, and pooled copies."""
    nodes = [
        n("Conv", ["x", "w"], ["c"], name="first"),
        *silu("c", "s"),
        n("Split", ["s", "halves"], ["left", "right"], axis=1, name="split"),
        n("Conv", ["right", "v"], ["d"], name="inner"),
        *silu("d", "t"),
        n("MaxPool", ["t"], ["p"], name="pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        n("Concat", ["left", "right", "t", "p"], ["j"], name="join", axis=1),
        n("Conv", ["j", "u"], ["y"], name="last"),
    ]
    constants = {"w": random(4, 3, 1, 1), "v": random(2, 2, 1, 1), "u": random(4, 8, 1, 1), "halves": np.array([2, 2])}
    proto = graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": None}, constants)
    by_name, walk, found = placed(proto, ones, "joins", amax={"j": 5.0})
    assert all(reads_int8(walk, by_name["join"]))
    assert reads_int8(walk, by_name["pool"]) == [True]
    assert reads_int8(walk, by_name["split"])[0]
    joined = {"s", "left", "right", "t", "p", "j"}
    assert set(found) == joined | {"x"}
    assert [found[name] for name in joined] == pytest.approx([5.0] * 6, rel=1e-6)
    assert found["x"] == pytest.approx(1.0, rel=1e-6)
    assert "left" not in placed(proto, ones)[2]


def test_what_two_joins_share_has_the_larger_scale(graph_of, random, ones):
    nodes = [
        *(n("Conv", ["x", f"w{i}"], [f"c{i}"], name=f"conv{i}") for i in range(3)),
        n("Concat", ["c0", "c1"], ["j"], axis=1),
        n("Concat", ["c1", "c2"], ["k"], axis=1),
        n("Conv", ["j", "v"], ["y"]),
        n("Conv", ["k", "v"], ["z"]),
    ]
    constants = {f"w{i}": random(2, 3, 1, 1, seed=i) for i in range(3)} | {"v": random(2, 4, 1, 1)}
    proto = graph_of(nodes, {"x": ["N", 3, 4, 4]}, {"y": None, "z": None}, constants)
    found = placed(proto, ones, "joins", amax={"j": 2.0, "k": 7.0})[2]
    assert [found[name] for name in ("c0", "c1", "c2", "j", "k")] == pytest.approx([7.0] * 5, rel=1e-6)
    needed = quantizable_tensors(proto, Placement(rules=frozenset({"joins"})))
    assert set(needed) == {"x", "j", "k"}  # joined tensors need no scale of their own


def test_a_join_for_no_int8_kernel_stays_float(graph_of, random, ones):
    nodes = [
        n("Conv", ["x", "w"], ["c"], name="boxes"),
        n("Conv", ["x", "w"], ["d"], name="scores"),
        n("Concat", ["c", "d"], ["y"], axis=1, name="join"),
    ]
    proto = graph_of(nodes, {"x": ["N", 3, 4, 4]}, {"y": None}, {"w": random(2, 3, 1, 1)})
    assert set(placed(proto, ones, *ALL_RULES)[2]) == {"x"}


def test_a_sum_after_an_activation_reads_the_int8_that_the_next_convolution_reads(two_convolutions, ones):
    net = two_convolutions(
        *silu("a", "s"),
        n("Conv", ["s", "u"], ["c"], name="inner"),
        *silu("c", "t"),
        n("Add", ["s", "t"], ["b"], name="sum"),
    )
    net.graph.initializer.extend([_constant("u")])
    by_name, walk, found = placed(net, ones, "readers")
    assert reads_int8(walk, by_name["sum"]) == [True, False]  # the other term is inside the activation's kernel
    assert set(found) == {"x", "s", "b"}


def test_resize_carries_int8_only_where_it_copies(two_convolutions, ones):
    for mode, carried in (("nearest", True), ("linear", False)):
        net = two_convolutions(
            n("Relu", ["a"], ["r"]),
            n("Resize", ["r", "", "scales"], ["up"], mode=mode, name="up"),
            n("Concat", ["up", "up"], ["j"], axis=1),
            n("Conv", ["j", "u"], ["b"], name="inner"),
        )
        net.graph.initializer.extend([_constant("u", 8)])
        by_name, walk, _ = placed(net, ones, "joins")
        assert walk.is_activation_pair(by_name["up"].input[0]) is carried


def _constant(name, inputs=4):
    return numpy_helper.from_array(np.random.default_rng(5).normal(size=(4, inputs, 1, 1)).astype(np.float32), name)


def test_tensors_without_a_scale_are_left_out(two_convolutions, ones):
    net = two_convolutions(*silu("a", "b"))
    assert set(placed(net, ones, *ALL_RULES, unscaled=frozenset({"a"}))[2]) == {"x", "b"}


def test_tensors_that_an_engine_held_in_int8_get_pairs_by_name(two_convolutions, ones):
    net = two_convolutions(*silu("a", "b"))
    assert set(placed(net, ones, held=frozenset({"a"}))[2]) == {"x", "a", "b"}
    assert set(placed(net, ones, held=frozenset({"unknown", "b"}))[2]) == {"x", "b"}


def test_rules_cost_little_accuracy(two_convolutions, run_onnx, random):
    net = two_convolutions(
        *silu("a", "s"),
        n("GlobalAveragePool", ["s"], ["p"]),
        n("Sigmoid", ["p"], ["g"]),
        n("Mul", ["s", "g"], ["m"]),
        n("Concat", ["m", "s"], ["j"], axis=1),
        n("Conv", ["j", "u"], ["b"], name="inner"),
    )
    net.graph.initializer.extend([_constant("u", 8)])
    x = random(16, 3, 8, 8)
    names = ("x", "a", "s", "m", "j", "b", "p", "g")
    session = OnnxRuntimeSession(net, name="net", also=names[1:])
    values = {"x": x} | with_tensors(session, {"x": x}, list(names[1:]))
    amax = {name: float(np.abs(value).max()) for name, value in values.items()}
    (expected,) = run_onnx(net, x=x)
    noise = []
    for rules in (frozenset(), ALL_RULES):
        (found,) = run_onnx(qdq_model_from_amax(net, amax, Placement(rules=rules)), x=x)
        noise.append(10 * np.log10(np.square(expected).sum() / np.square(expected - found).sum()))
    assert noise[1] > 28
    assert noise[1] > noise[0] - 6


def test_products_of_few_rows_or_columns_are_small(graph_of, random):
    shapes = {"a": (16, 16), "b": (16, 15), "c": (15, 64), "d": (64, 64)}
    nodes, at = [], "x"
    for name in shapes:
        nodes.append(n("MatMul", [at, name], [f"{name}_out"], name=f"by_{name}"))
        at = f"{name}_out"
    constants = {name: random(*shape) for name, shape in shapes.items()}
    proto = graph_of([*nodes, n("Gemm", [at, "e"], ["y"], name="classify")], {"x": ["N", 16]}, {"y": None}, constants)
    proto.graph.initializer.extend([_matrix("e", 64, 10)])
    assert small_products(prepared_for_quantization(proto)) == {"by_b", "by_c", "classify"}


def _matrix(name, rows, columns):
    return numpy_helper.from_array(np.ones((rows, columns), np.float32), name)


def test_the_work_of_products_is_counted_in_multiply_accumulates(graph_of, random):
    nodes = [
        n("Conv", ["x", "w"], ["c"], name="conv"),
        n("ConvTranspose", ["c", "t"], ["u"], name="up", strides=[2, 2]),
        n("Flatten", ["u"], ["f"]),
        n("Gemm", ["f", "g", "b"], ["y"], name="classify"),
    ]
    constants = {"w": random(4, 3, 3, 3), "t": random(4, 5, 2, 2), "g": random(180, 10), "b": random(10)}
    proto = graph_of(nodes, {"x": [2, 3, 5, 5]}, {"y": None}, constants)
    macs = macs_by_product(prepared_for_quantization(proto))
    assert macs == {"conv": 2 * 9 * 4 * 27, "up": 2 * 4 * 9 * 20, "classify": 2 * 180 * 10}
    assert share_of_work(macs, {"conv"}) == pytest.approx(1944 / (1944 + 1440 + 3600))
    assert share_of_work({"conv": 0}, {"conv"}) is None


def test_the_guide_names_each_rule():
    guide = (Path(__file__).resolve().parents[3] / "docs" / "explicit-models.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in guide for name in RULES)
