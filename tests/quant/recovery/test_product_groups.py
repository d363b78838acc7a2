"""Which products are in one precision together, and which follow each other."""

import pytest
from onnx import helper

from quant.qdq.preparation import prepared_for_quantization
from quant.recovery.float_choice.neighbours import product_neighbours, with_islands
from quant.recovery.float_choice.product_groups import product_groups

n = helper.make_node


@pytest.fixture
def attention(graph_of, random):
    """An attention block with a mask and a scale between its products, and a classifier that ends in a Softmax."""
    nodes = [
        n("MatMul", ["x", "wq"], ["q"], name="queries"), n("MatMul", ["x", "wk"], ["k"], name="keys"),
        n("MatMul", ["x", "wv"], ["v"], name="values"), n("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        n("MatMul", ["q", "kt"], ["scores"], name="scores"), n("Mul", ["scores", "scale"], ["scaled"]),
        n("Add", ["scaled", "mask"], ["masked"]), n("Softmax", ["masked"], ["p"], axis=-1),
        n("MatMul", ["p", "v"], ["mixed"], name="mix"), n("MatMul", ["mixed", "wo"], ["o"], name="project"),
        n("MatMul", ["o", "wc"], ["logits"], name="classify"), n("Softmax", ["logits"], ["y"], axis=-1),
    ]  # fmt: skip
    constants = {name: random(16, 16, seed=i) for i, name in enumerate(("wq", "wk", "wv", "wo", "wc"))}
    constants |= {"scale": 0.25, "mask": random(6, 6, seed=9)}
    return graph_of(nodes, {"x": ["N", 6, 16]}, {"y": ["N", 6, 16]}, constants)


def names(groups):
    return {group.nodes for group in groups}


def test_the_products_of_attention_are_one_group_and_all_others_stand_alone(attention):
    groups = product_groups(prepared_for_quantization(attention))
    alone = {(name,) for name in ("queries", "keys", "values", "project", "classify")}
    assert names(groups) == {("scores", "mix"), *alone}
    assert next(group.name for group in groups if len(group.nodes) == 2) == "scores + mix"


def test_a_product_that_is_in_float_anyway_is_in_no_group(attention):
    groups = product_groups(prepared_for_quantization(attention), frozenset(("mix", "classify")))
    assert ("scores",) in names(groups)  # with its partner in float, it stands alone
    assert not any({"mix", "classify"} & set(group.nodes) for group in groups)


def test_two_blocks_of_attention_are_two_groups(graph_of, random):
    nodes, at = [], "x"
    for i in (1, 2):
        nodes += [
            n("MatMul", [at, f"w{i}"], [f"q{i}"], name=f"q{i}"), n("Transpose", [at], [f"t{i}"], perm=[0, 2, 1]),
            n("MatMul", [f"q{i}", f"t{i}"], [f"s{i}"], name=f"s{i}"), n("Softmax", [f"s{i}"], [f"p{i}"], axis=-1),
            n("MatMul", [f"p{i}", at], [f"m{i}"], name=f"m{i}"), n("Add", [f"m{i}", at], [f"r{i}"]),
        ]  # fmt: skip
        at = f"r{i}"
    proto = graph_of(nodes, {"x": ["N", 5, 8]}, {at: ["N", 5, 8]}, {"w1": random(8, 8), "w2": random(8, 8, seed=1)})
    assert names(product_groups(prepared_for_quantization(proto))) == {("q1",), ("s1", "m1"), ("q2",), ("s2", "m2")}


def test_neighbours_are_found_through_other_operators_and_branches(bottlenecks):
    found = product_neighbours(prepared_for_quantization(bottlenecks))
    assert found["depthwise"] == {"expand1", "project1"}
    assert found["expand2"] == {"stem", "project1", "project2"}  # the sum of a residual stream comes from both
    assert found["stem"] == {"expand1", "expand2", *(name for name in found if name not in _NAMED)}


_NAMED = {"stem", "expand1", "depthwise", "project1", "expand2", "project2"}


def test_a_product_between_products_in_float_is_an_island(bottlenecks):
    found = product_neighbours(prepared_for_quantization(bottlenecks))
    assert with_islands(frozenset(("expand1", "project1")), found) == {"expand1", "depthwise", "project1"}
    assert with_islands(frozenset(("expand1",)), found) == {"expand1"}
    assert with_islands(frozenset(), found) == frozenset()
