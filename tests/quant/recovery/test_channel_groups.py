"""Whatever positive factors the groups of a graph get, the graph computes what it did."""

import numpy as np
import pytest
from onnx import helper

from quant.qdq.preparation import prepared_for_quantization
from quant.recovery.channels.equalization import with_factors
from quant.recovery.channels.groups import channel_groups
from quant.recovery.inner_values import all_values
from tests.int8_oracle import run_exactly

n = helper.make_node


def groups_of(proto, inputs):
    editor = prepared_for_quantization(proto)
    names = [name for node in editor.nodes for name in node.output if name]
    return editor, channel_groups(editor, all_values(editor.model(), inputs, names))


def scaled(proto, inputs, seed=0):
    """The model with random factors, and how many there are besides the fixed one."""
    editor, groups = groups_of(proto, inputs)
    factors = 2.0 ** np.random.default_rng(seed).integers(-6, 7, groups.count)
    factors[0] = 1
    return with_factors(editor, groups.constants, factors).model(), groups.count - 1


def assert_same_function(proto, inputs, least):
    one = {name: array[:1] for name, array in inputs.items()}
    changed, count = scaled(proto, one)
    assert count >= least
    expected, found = run_exactly(proto, inputs), run_exactly(changed, inputs)
    for value in proto.graph.output:
        size = np.abs(expected[value.name]).max()
        np.testing.assert_allclose(found[value.name], expected[value.name], rtol=1e-5, atol=1e-6 * size)


def test_residual_streams_transformers_and_moved_data(residual_net, transformer, moving_shortcut, bottlenecks, random):
    assert_same_function(
        residual_net, {"input": random(2, 3, 8, 8)}, least=4 + 2
    )  # the stream, after the deconvolution
    assert_same_function(transformer, {"x": random(2, 16, 64)}, least=64 + 64)  # the norm's output, attention's values
    assert_same_function(moving_shortcut, {"x": random(2, 3, 8, 8)}, least=0)  # its sum is the output
    assert_same_function(bottlenecks, {"x": random(2, 3, 8, 8)}, least=16)


def test_a_stream_is_one_group_and_a_bounded_activation_has_factor_1(bottlenecks, random):
    _, groups = groups_of(bottlenecks, {"x": random(1, 3, 8, 8)})
    stream = [np.unique(groups.tensors[name][0, :, 0, 0]).tolist() for name in ("c0", "s1", "s2")]
    assert stream[0] == stream[1] == stream[2]
    assert len(stream[0]) == 16
    assert not groups.tensors["k1"].any()
    assert groups.count == 17


def test_an_image_and_an_answer_keep_their_units(bottlenecks, random):
    _, groups = groups_of(bottlenecks, {"x": random(1, 3, 8, 8)})
    assert not groups.tensors["x"].any()
    assert not groups.tensors["y"].any()


LAYERS = {  # what stands between two convolutions `a` and `b`, of 8 channels; how many factors it leaves
    "relu": ([n("Relu", ["a"], ["m"])], {}, 8),
    "leaky": ([n("LeakyRelu", ["a"], ["m"])], {}, 8),
    "prelu": ([n("PRelu", ["a", "slope"], ["m"])], {"slope": np.full((8, 1, 1), 0.1, np.float32)}, 8),
    "clip at zero": ([n("Clip", ["a", "zero"], ["m"])], {"zero": np.float32(0)}, 8),
    "clip at six": ([n("Clip", ["a", "zero", "six"], ["m"])], {"zero": np.float32(0), "six": np.float32(6)}, 0),
    "sigmoid": ([n("Sigmoid", ["a"], ["m"])], {}, 0),
    "silu": ([n("Sigmoid", ["a"], ["g"]), n("Mul", ["a", "g"], ["m"])], {}, 0),
    "gate": (
        [n("GlobalAveragePool", ["a"], ["p"]), n("Conv", ["p", "v"], ["q"]), n("Sigmoid", ["q"], ["g"]),
         n("Mul", ["a", "g"], ["m"])],
        {"v": np.full((8, 8, 1, 1), 0.1, np.float32)},
        8,
    ),
    "pooling": ([n("MaxPool", ["a"], ["m"], kernel_shape=[2, 2])], {}, 8),
    "averages": ([n("AveragePool", ["a"], ["m"], kernel_shape=[2, 2])], {}, 8),
    "padding": ([n("Pad", ["a", "pads"], ["m"])], {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, 8),
    "shuffle": (
        [n("Reshape", ["a", "four"], ["r"]), n("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3, 4]),
         n("Reshape", ["t", "back"], ["m"])],
        {"four": np.array([0, 2, 4, 6, 6]), "back": np.array([0, 8, 6, 6])},
        8,
    ),
    "halves": (
        [n("Split", ["a"], ["s", "t"], axis=1), n("Relu", ["t"], ["u"]), n("Concat", ["u", "s"], ["m"], axis=1)], {}, 8,
    ),
    "sum of halves": ([n("Split", ["a"], ["s", "t"], axis=1), n("Add", ["s", "t"], ["m"])], {}, 4),
    "mean of channels": ([n("ReduceMean", ["a"], ["m"], axes=[1])], {}, 1),
    "scale and shift": (
        [n("Mul", ["a", "gain"], ["h"]), n("Add", ["h", "shift"], ["m"])],
        {"gain": np.linspace(1, 2, 8, dtype=np.float32).reshape(1, 8, 1, 1), "shift": np.ones((8, 1, 1), np.float32)},
        16,
    ),
    "a constant beside": ([n("Concat", ["a", "ones"], ["m"], axis=1)], {"ones": np.ones((1, 2, 6, 6), np.float32)}, 8),
    "another domain": ([n("Gelu", ["a"], ["m"], domain="com.microsoft")], {}, 0),
    "depthwise": (
        [n("Relu", ["a"], ["h"]), n("Conv", ["h", "d"], ["m"], group=8, pads=[1] * 4)],
        {"d": np.random.default_rng(3).normal(size=(8, 1, 3, 3)).astype(np.float32)},
        16,
    ),
    "groups": (
        [n("Conv", ["a", "d"], ["m"], group=2)],
        {"d": np.random.default_rng(3).normal(size=(8, 4, 1, 1)).astype(np.float32)},
        16,
    ),
    "transposed, in groups": (
        [n("ConvTranspose", ["a", "d"], ["m"], group=2, strides=[2, 2])],
        {"d": np.random.default_rng(3).normal(size=(8, 4, 2, 2)).astype(np.float32)},
        16,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYERS)
def test_what_stands_between_two_convolutions(graph_of, random, kind):
    between, constants, factors = LAYERS[kind]
    channels = {"sum of halves": 4, "mean of channels": 1, "a constant beside": 10}.get(kind, 8)
    nodes = [n("Conv", ["x", "w", "c"], ["a"]), *between, n("Conv", ["m", "v2"], ["y"])]
    constants = constants | {"w": random(8, 3, 3, 3), "c": random(8), "v2": random(5, channels, 1, 1)}
    domains = {"com.microsoft": 1} if kind == "another domain" else {}
    proto = graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 5, "H", "W"]}, constants)
    proto.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in domains.items())
    one = {"x": random(1, 3, 8, 8)}
    _, count = scaled(proto, one)
    assert count == factors
    assert_same_function(proto, {"x": random(1, 3, 8, 8)}, least=factors)


def test_a_product_of_two_activations_keeps_the_columns_of_its_values(graph_of, random):
    """Attention: values pass through the weights of the softmax; queries and keys meet in sums."""
    nodes = [
        n("MatMul", ["x", "q"], ["Q"]), n("MatMul", ["x", "k"], ["K"]), n("MatMul", ["x", "v"], ["V"]),
        n("Transpose", ["K"], ["KT"], perm=[0, 2, 1]), n("MatMul", ["Q", "KT"], ["S"]), n("Softmax", ["S"], ["P"]),
        n("MatMul", ["P", "V"], ["O"]), n("MatMul", ["O", "o"], ["y"]),
    ]  # fmt: skip
    constants = {name: random(6, 6, seed=i) for i, name in enumerate("qkvo")}
    proto = graph_of(nodes, {"x": ["N", 4, 6]}, {"y": ["N", 4, 6]}, constants)
    _, groups = groups_of(proto, {"x": random(1, 4, 6)})
    assert groups.count == 7  # six columns of the values
    assert not groups.tensors["Q"].any()
    assert groups.tensors["O"][0, 0].tolist() == groups.tensors["V"][0, 0].tolist()
    assert_same_function(proto, {"x": random(1, 4, 6)}, least=6)


def test_weights_on_the_left_scale_rows(graph_of, random):
    """An MLP-mixer's product over tokens."""
    nodes = [n("MatMul", ["l", "x"], ["a"]), n("Relu", ["a"], ["b"]), n("MatMul", ["m", "b"], ["y"])]
    proto = graph_of(nodes, {"x": ["N", 4, 6]}, {"y": ["N", 3, 6]}, {"l": random(5, 4), "m": random(3, 5, seed=1)})
    assert_same_function(proto, {"x": random(1, 4, 6)}, least=5)


def test_weights_that_two_products_share_get_a_copy_for_each(graph_of, random):
    nodes = [
        n("MatMul", ["x", "w"], ["a"]), n("Relu", ["a"], ["b"]),
        n("MatMul", ["b", "w"], ["c"]), n("Relu", ["c"], ["d"]), n("MatMul", ["d", "w"], ["y"]),
    ]  # fmt: skip
    proto = graph_of(nodes, {"x": ["N", 6]}, {"y": ["N", 6]}, {"w": random(6, 6)})
    assert_same_function(proto, {"x": random(3, 6)}, least=12)


def test_what_a_branch_reads_has_factor_1(graph_of, random):
    def branch(name, op):
        out = helper.make_tensor_value_info(f"{name}_out", 1, None)
        return helper.make_graph([n(op, ["a"], [f"{name}_out"])], name, [], [out])

    nodes = [
        n("MatMul", ["x", "w"], ["a"]), n("ReduceMax", ["x"], ["m"], keepdims=0), n("Greater", ["m", "zero"], ["up"]),
        n("If", ["up"], ["b"], then_branch=branch("t", "Sigmoid"), else_branch=branch("e", "Tanh")),
        n("MatMul", ["b", "w"], ["y"]),
    ]  # fmt: skip
    proto = graph_of(nodes, {"x": ["N", 6]}, {"y": ["N", 6]}, {"w": random(6, 6), "zero": np.float32(0)})
    _, groups = groups_of(proto, {"x": random(1, 6)})
    assert groups.count == 1
