from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from quant.errors import BuildError
from quant.graph import activation_names, load_model
from quant.half import half_model
from quant.placement import Placement
from quant.qdq import prepared_for_quantization, qdq_model_from_amax, quantizable_tensors

KERNELS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Pieces of float models that TensorRT fuses with what is before them: a pair between would split the two.
FUSED = ("BatchNormalization", "Relu", "Clip")


class Walk:
    """A Q/DQ model with what a reader needs to walk it."""

    def __init__(self, proto):
        self.nodes = list(proto.graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}

    def is_activation_pair(self, name):
        dequantize = self.producer.get(name)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            return False
        quantize = self.producer.get(dequantize.input[0])
        return (
            quantize is not None
            and quantize.op_type == "QuantizeLinear"
            and list(quantize.input[1:]) == list(dequantize.input[1:])
            and quantize.input[0] not in self.constants
        )

    def is_int8_weight(self, name):
        dequantize = self.producer.get(name)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            return False
        weight = self.constants.get(dequantize.input[0])
        return weight is not None and weight.dtype == np.int8

    def assert_explicit(self):
        """What TensorRT's explicit quantization demands of a model."""
        kernels = [node for node in self.nodes if node.op_type in KERNELS]
        assert kernels
        for node in kernels:
            for name in node.input[:2]:
                assert self.is_activation_pair(name) or self.is_int8_weight(name), (node.op_type, name)
            for name in node.input[2:]:  # biases are float constants
                assert self.constants[name].dtype == np.float32
        quantizers = [node for node in self.nodes if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        for node in quantizers:
            scale, zero_point = self.constants[node.input[1]], self.constants[node.input[2]]
            assert scale.dtype == np.float32
            assert np.isfinite(scale).all()
            assert (scale > 0).all()
            assert zero_point.dtype == np.int8
            assert not zero_point.any()
        quantized = Counter(node.input[0] for node in quantizers if node.op_type == "QuantizeLinear")
        assert set(quantized.values()) <= {1}, "a tensor has one pair, however many nodes read it"
        pairs = {node.output[0] for node in quantizers if node.op_type == "DequantizeLinear"}
        for node in self.nodes:
            if node.op_type in FUSED:
                assert not pairs & set(node.input), (node.op_type, "is cut off by a pair")
            elif node.op_type == "Add":
                on_constant = [name for name in node.input if name in self.constants]
                assert not (on_constant and pairs & set(node.input)), "a bias stays float"
                assert sum(name in pairs for name in node.input) <= 1


@pytest.fixture
def ones():
    """amax 1 for every activation of a model."""
    return lambda proto: dict.fromkeys(activation_names(proto), 1.0)


def test_the_residual_net_is_explicit_and_valid(residual_net, ones):
    quantized = qdq_model_from_amax(residual_net, ones(residual_net))
    onnx.checker.check_model(quantized, full_check=True)
    Walk(quantized).assert_explicit()
    assert quantizable_tensors(residual_net) == ["input", "relu1", "relu2", "flat", "hidden"]


def test_the_model_that_was_given_is_not_edited(residual_net, ones):
    before = residual_net.SerializeToString()
    qdq_model_from_amax(residual_net, ones(residual_net))
    assert residual_net.SerializeToString() == before


def test_the_skip_input_of_a_residual_add_is_quantized_and_the_other_is_not(residual_net, ones):
    walk = Walk(qdq_model_from_amax(residual_net, ones(residual_net)))
    (add,) = (node for node in walk.nodes if node.name == "residual")
    assert add.input[0] == "bn2"  # straight from the second convolution, its BatchNormalization folded
    assert walk.producer["bn2"].op_type == "Conv"
    assert walk.is_activation_pair(add.input[1])
    # The skip and the second convolution read the same tensor through the same pair.
    assert add.input[1] == walk.producer["bn2"].input[0]


@pytest.mark.parametrize("order", [["a", "b"], ["b", "a"]])
def test_of_two_convolutions_the_later_one_fuses_with_the_add(graph_of, random, ones, order):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["x", "v"], ["b"]),
        helper.make_node("Add", order, ["y"], name="residual"),
    ]
    constants = {"w": random(2, 2, 1, 1), "v": random(2, 2, 1, 1)}
    proto = graph_of(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 2, 4, 4]}, constants)
    walk = Walk(qdq_model_from_amax(proto, ones(proto)))
    walk.assert_explicit()
    (add,) = (node for node in walk.nodes if node.name == "residual")
    assert "b" in add.input
    assert walk.is_activation_pair(next(name for name in add.input if name != "b"))


def test_an_add_that_is_not_residual_stays_float(graph_of, random, ones):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Sigmoid", ["a"], ["s"]),
        helper.make_node("Add", ["r", "s"], ["y"], name="plain"),
        helper.make_node("Add", ["y", "bias"], ["z"], name="shift"),
    ]
    constants = {"w": random(2, 2, 1, 1), "bias": random(2, 1, 1)}
    proto = graph_of(nodes, {"x": ["N", 2, 4, 4]}, {"z": ["N", 2, 4, 4]}, constants)
    walk = Walk(qdq_model_from_amax(proto, ones(proto)))
    assert [list(node.input) for node in walk.nodes if node.op_type == "Add"] == [["r", "s"], ["y", "bias"]]


def test_a_tensor_that_many_nodes_read_has_one_pair_and_float_readers_read_it_unquantized(graph_of, random, ones):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        *(helper.make_node("Conv", ["r", f"w{i}"], [f"c{i}"]) for i in range(3)),
        helper.make_node("Concat", ["c0", "c1", "c2", "r"], ["y"], axis=1),
    ]
    constants = {f"w{i}": random(2, 2, 1, 1, seed=i) for i in range(3)}
    proto = graph_of(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 8, 4, 4]}, constants)
    walk = Walk(qdq_model_from_amax(proto, ones(proto)))
    walk.assert_explicit()
    assert [node.input[0] for node in walk.nodes if node.op_type == "QuantizeLinear"] == ["r"]
    (concat,) = (node for node in walk.nodes if node.op_type == "Concat")
    assert list(concat.input) == ["c0", "c1", "c2", "r"]


@pytest.mark.parametrize(
    ("op", "weight", "data", "axis"),
    [
        ("Conv", (6, 4, 3, 3), (1, 4, 5, 5), 0),
        ("ConvTranspose", (4, 6, 3, 3), (1, 4, 5, 5), 1),
        ("MatMul", (4, 6), (2, 4), 1),
    ],
)
def test_weights_have_a_scale_for_each_output_channel(graph_of, random, ones, op, weight, data, axis):
    w = random(*weight)
    proto = graph_of([helper.make_node(op, ["x", "w"], ["y"])], {"x": data}, {"y": [None] * len(data)}, {"w": w})
    walk = Walk(qdq_model_from_amax(proto, ones(proto)))
    (kernel,) = (node for node in walk.nodes if node.op_type == op)
    dequantize = walk.producer[kernel.input[1]]
    others = tuple(i for i in range(w.ndim) if i != axis)
    np.testing.assert_allclose(walk.constants[dequantize.input[1]], np.abs(w).max(axis=others) / 127, rtol=1e-6)
    assert {a.name: a.i for a in dequantize.attribute} == {"axis": axis}


def test_activation_scales_are_amax_over_127(residual_net, ones):
    amax = ones(residual_net) | {"input": 2.54, "flat": 127.0}
    walk = Walk(qdq_model_from_amax(residual_net, amax))
    scales = {n.input[0]: walk.constants[n.input[1]] for n in walk.nodes if n.op_type == "QuantizeLinear"}
    assert scales["input"] == pytest.approx(0.02, rel=1e-6)
    assert scales["flat"] == 1.0
    assert scales["relu1"] == pytest.approx(1 / 127, rel=1e-6)


def test_the_smallest_amax_still_gives_a_positive_scale(residual_net, ones):
    Walk(qdq_model_from_amax(residual_net, ones(residual_net) | {"relu1": 2.0**-149})).assert_explicit()


def test_shared_weights_are_quantized_once_and_stay_float_for_others(graph_of, random, ones, run_onnx):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Add", ["b", "w"], ["y"]),
    ]
    proto = graph_of(nodes, {"x": [3, 3]}, {"y": [3, 3]}, {"w": random(3, 3)})
    quantized = qdq_model_from_amax(proto, ones(proto) | {"x": 4.0, "a": 8.0})
    walk = Walk(quantized)
    assert [n.op_type for n in walk.nodes].count("DequantizeLinear") == 3  # x, a and w
    np.testing.assert_array_equal(walk.constants["w"], random(3, 3))
    x = random(3, 3, seed=5)
    np.testing.assert_allclose(run_onnx(quantized, x=x)[0], run_onnx(proto, x=x)[0], atol=0.3)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [None, (), (1,), (3,), (1, 3), (4, 3)])
@pytest.mark.parametrize("factors", [{}, {"alpha": 0.5}, {"beta": -2.0}, {"alpha": 2.0, "beta": 0.25}])
@pytest.mark.parametrize("first_transposed", [0, 1])
def test_gemm_in_all_its_forms_gives_the_same_float_result(
    graph_of, random, run_onnx, ones, transposed, first_transposed, bias, factors
):
    constants = {"w": random(*((3, 5) if transposed else (5, 3)))}
    if bias is not None:
        constants["b"] = np.asarray(random(*bias, seed=2), np.float32)
    inputs = ["x", "w"] if bias is None else ["x", "w", "b"]
    node = helper.make_node("Gemm", inputs, ["y"], transA=first_transposed, transB=transposed, **factors)
    shape = (5, 4) if first_transposed else (4, 5)
    proto = graph_of([node], {"x": shape}, {"y": [4, 3]}, constants)
    x = random(*shape, seed=3)
    (expected,) = run_onnx(proto, x=x)
    prepared = prepared_for_quantization(proto).model()
    np.testing.assert_allclose(run_onnx(prepared, x=x)[0], expected, rtol=1e-5, atol=1e-5)
    if not first_transposed:
        assert "Gemm" not in {n.op_type for n in prepared.graph.node}  # TensorRT 8.6 refuses one with INT8 weights
    quantized = qdq_model_from_amax(proto, {"x": float(np.abs(x).max()), "y": 1.0})
    onnx.checker.check_model(quantized, full_check=True)
    Walk(quantized).assert_explicit()
    # Half a step on each of five products of numbers up to about 3: 5 * 3 * 3 / 127, times alpha.
    tolerance = 0.36 * factors.get("alpha", 1)
    np.testing.assert_allclose(run_onnx(quantized, x=x)[0], expected, atol=tolerance)


def test_a_gemm_between_two_activations_has_pairs_on_both(graph_of, ones):
    proto = graph_of([helper.make_node("Gemm", ["a", "b"], ["y"])], {"a": [2, 3], "b": [3, 4]}, {"y": [2, 4]})
    walk = Walk(qdq_model_from_amax(proto, ones(proto)))
    walk.assert_explicit()
    assert [n.input[0] for n in walk.nodes if n.op_type == "QuantizeLinear"] == ["a", "b"]


def quantized_by_numpy(x, scale, axis=None):
    """Symmetric INT8 and back: nearest step, ties to even, kept within the type."""
    if axis is not None:
        scale = scale.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return (np.clip(np.rint(x / scale), -128, 127) * scale).astype(np.float32)


def test_outputs_equal_a_numpy_simulation_of_symmetric_int8(graph_of, random, run_onnx):
    """A convolution, Relu and a matrix product with bias, the convolution as explicit sums."""
    w, b, v, c = random(4, 3, 3, 3), random(4, seed=1), random(4, 5, seed=2), random(5, seed=3)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "v", "c"], ["y"]),
    ]
    proto = graph_of(nodes, {"x": ["N", 3, 6, 6]}, {"y": ["N", 5]}, {"w": w, "b": b, "v": v, "c": c})
    x = random(4, 3, 6, 6, seed=4)
    amax = {"x": 2.0, "flat": 1.5}  # both clip some values
    assert np.abs(x).max() > 2.0

    x8 = quantized_by_numpy(x, np.float32(2.0 / 127))
    w8 = quantized_by_numpy(w, np.abs(w).max(axis=(1, 2, 3)) / np.float32(127), axis=0)
    windows = np.lib.stride_tricks.sliding_window_view(x8, (3, 3), axis=(2, 3))  # N, channel, row, column, 3, 3
    conv = np.einsum("nchwij,ocij->nohw", windows.astype(np.float64), w8.astype(np.float64)) + b.reshape(1, -1, 1, 1)
    flat = np.maximum(conv, 0).mean(axis=(2, 3)).astype(np.float32)
    assert flat.max() > 1.5
    flat8 = quantized_by_numpy(flat, np.float32(1.5 / 127))
    v8 = quantized_by_numpy(v, np.abs(v).max(axis=0) / np.float32(127), axis=1)
    expected = flat8 @ v8 + c

    quantized = qdq_model_from_amax(proto, amax)
    np.testing.assert_allclose(run_onnx(quantized, x=x)[0], expected, rtol=1e-4, atol=1e-5)


def test_int8_with_wide_enough_scales_is_close_to_float(residual_net, run_onnx, random):
    x = random(8, 3, 8, 8, seed=20)
    tensors = quantizable_tensors(residual_net)
    values = run_onnx(residual_net, also=[name for name in tensors if name != "input"], input=x) | {"input": x}
    quantized = qdq_model_from_amax(residual_net, {name: float(np.abs(values[name]).max()) for name in tensors})
    (found,) = run_onnx(quantized, input=x)
    noise = np.square(found - values["logits"]).mean() / np.square(values["logits"]).mean()
    assert 0 < noise < 1e-3  # over 30 dB


def test_opset_11_is_brought_to_one_that_knows_scales_per_channel(graph_of, random, run_onnx, ones, norm_constants):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "n_scale", "n_shift", "n_mean", "n_var"], ["n"]),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    constants = {"w": random(3, 2, 1, 1), **norm_constants("n", 3)}
    proto = graph_of(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 3, 4, 4]}, constants, opset=11)
    x = random(2, 2, 4, 4)
    quantized = qdq_model_from_amax(proto, {"x": float(np.abs(x).max())})
    assert quantized.opset_import[0].version >= 13
    onnx.checker.check_model(quantized, full_check=True)
    Walk(quantized).assert_explicit()
    np.testing.assert_allclose(run_onnx(quantized, x=x)[0], run_onnx(proto, x=x)[0], atol=0.2)
    assert quantizable_tensors(proto) == ["x"]


def test_an_opset_that_tensorrt_8_6_reads_is_kept(residual_net, ones):
    assert qdq_model_from_amax(residual_net, ones(residual_net)).opset_import[0].version == 17


def test_a_quantized_model_is_refused(residual_net, ones):
    quantized = qdq_model_from_amax(residual_net, ones(residual_net))
    with pytest.raises(BuildError, match="the model is quantized already; give the FP32 model"):
        qdq_model_from_amax(quantized, ones(quantized))


def test_a_model_with_int8_weights_alone_is_refused_too(graph_of, ones):
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"], axis=1),
        helper.make_node("MatMul", ["x", "wf"], ["y"]),
    ]
    constants = {"w": np.ones((3, 2), np.int8), "s": np.ones(2, np.float32), "z": np.zeros(2, np.int8)}
    proto = graph_of(nodes, {"x": ["N", 3]}, {"y": ["N", 2]}, constants)
    with pytest.raises(BuildError, match="quantized already"):
        qdq_model_from_amax(proto, ones(proto))


def test_an_fp16_model_is_refused(residual_net, ones):
    half = half_model(residual_net)
    with pytest.raises(BuildError, match="float16, expected float32; give the FP32 model"):
        qdq_model_from_amax(half, ones(half))


def test_missing_scales_are_counted_and_the_first_is_named(residual_net, ones):
    amax = ones(residual_net)
    del amax["relu2"], amax["flat"]
    with pytest.raises(BuildError, match="missing scale of 2 of 5 tensors, 'relu2' first"):
        qdq_model_from_amax(residual_net, amax)


def test_a_model_with_nothing_to_quantize_is_refused(graph_of):
    proto = graph_of([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 2]}, {"y": ["N", 2]})
    with pytest.raises(BuildError, match=r"no Conv, ConvTranspose, Gemm, MatMul to quantize; .*fp16"):
        qdq_model_from_amax(proto, {"x": 1.0, "y": 1.0})


def test_the_embedded_sample_is_explicit(demo_master, ones):
    proto = load_model(demo_master / "model.onnx").proto
    quantized = qdq_model_from_amax(proto, ones(proto))
    onnx.checker.check_model(quantized, full_check=True)
    walk = Walk(quantized)
    walk.assert_explicit()
    adds = [n for n in walk.nodes if n.op_type == "Add" and not any(name in walk.constants for name in n.input)]
    assert [sum(walk.is_activation_pair(name) for name in n.input) for n in adds] == [1, 1]


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2", "vit"])
def test_the_reference_models_are_explicit(shared, ones, name):
    proto = load_model(shared / "models" / f"{name}.onnx").proto
    quantized = qdq_model_from_amax(proto, ones(proto))
    onnx.checker.check_model(quantized, full_check=True)
    Walk(quantized).assert_explicit()


@pytest.fixture
def moving_shortcut(graph_of, random):
    """A block whose shortcut only moves data: every second pixel, then channels of zeros, as small ResNets have it."""
    constants = {
        "w1": random(4, 3, 3, 3, seed=1),
        "w2": random(8, 4, 3, 3, seed=2),
        "from": np.array([0, 0], np.int64),
        "to": np.array([99, 99], np.int64),
        "axes": np.array([2, 3], np.int64),
        "steps": np.array([2, 2], np.int64),
        "pads": np.array([0, 2, 0, 0, 0, 2, 0, 0], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1] * 4, name="conv1"),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4, strides=[2, 2], name="conv2"),
        helper.make_node("Slice", ["r1", "from", "to", "axes", "steps"], ["s"], name="slice"),
        helper.make_node("Pad", ["s", "pads"], ["p"], name="pad"),
        helper.make_node("Add", ["c2", "p"], ["y"], name="add"),
    ]
    return graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 8, 4, 4]}, constants)


def test_a_shortcut_that_only_moves_data_stays_int8_with_one_scale(moving_shortcut):
    amax = {"x": 3.0, "r1": 2.0}  # none for the moved data
    walk = Walk(qdq_model_from_amax(moving_shortcut, amax))
    by_name = {node.name: node for node in walk.nodes}
    assert walk.is_activation_pair(by_name["slice"].input[0])
    assert by_name["slice"].input[0] == by_name["conv2"].input[0]  # nobody reads the floats of r1
    skip = by_name["add"].input[1]
    assert walk.is_activation_pair(skip)
    assert walk.constants[walk.producer[skip].input[1]] == pytest.approx(2.0 / 127)


def test_moved_data_needs_no_scale_of_its_own(moving_shortcut):
    assert quantizable_tensors(moving_shortcut) == ["x", "r1"]


def test_moving_data_in_int8_changes_nothing(moving_shortcut, run_onnx, random):
    amax = {"x": 3.0, "r1": 2.0, "p": 2.0}
    x = random(5, 3, 8, 8)
    moved = run_onnx(qdq_model_from_amax(moving_shortcut, amax), x=x)[0]
    plain = run_onnx(qdq_model_from_amax(moving_shortcut, amax, Placement(moves=False)), x=x)[0]
    np.testing.assert_array_equal(moved, plain)


def test_a_pad_with_another_value_than_zero_is_no_mere_move(moving_shortcut):
    moving_shortcut.graph.initializer.append(numpy_helper.from_array(np.float32(0.3), "value"))
    next(node for node in moving_shortcut.graph.node if node.name == "pad").input.append("value")
    assert quantizable_tensors(moving_shortcut) == ["x", "r1", "p"]


def test_a_kernel_that_stays_float_takes_its_shortcut_with_it(moving_shortcut):
    placement = Placement(float_nodes=frozenset({"conv2"}))
    walk = Walk(qdq_model_from_amax(moving_shortcut, {"x": 3.0}, placement))
    by_name = {node.name: node for node in walk.nodes}
    assert by_name["conv2"].input[0] == "r1"
    assert list(by_name["add"].input) == ["c2", "p"]
    assert walk.is_int8_weight(by_name["conv1"].input[1])
