"""The steps of recovery, one by one."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from quant.evaluation.accuracy import reader_from_batch
from quant.onnx_graph.model import OnnxModel
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.writer import qdq_model_from_amax
from quant.recovery.bias_correction import with_corrected_biases
from quant.recovery.channels.equalization import equalize
from quant.recovery.float_choice.sensitivity import in_order_of_worth, macs_of_products, sensitivities
from quant.recovery.inner_values import single_images
from quant.recovery.judging import Judge, is_beyond_chance, level_db
from quant.recovery.weight_rounding import rounded_weights, with_rounded_weights
from tests.int8_oracle import amax_of, int8_of, run_exactly, sqnr_db

n = helper.make_node


def images_of(inputs):
    return list(single_images([inputs], None))


def int8_db(proto, inputs, given=None):
    """SQNR of the INT8 form of a model against the given one."""
    found, expected = run_exactly(int8_of(proto, inputs), inputs), run_exactly(given or proto, inputs)
    name = proto.graph.output[0].name
    return sqnr_db(found[name], expected[name])


def test_equalization_undoes_loud_channels_and_keeps_every_bit(bottlenecks, loud_bottlenecks, random):
    inputs = {"x": random(16, 3, 8, 8)}
    plain, lost = int8_db(bottlenecks, inputs), int8_db(loud_bottlenecks, inputs)
    assert lost < plain - 12
    equalized = equalize(loud_bottlenecks, images_of(inputs))
    assert equalized.changed == 1
    assert equalized.places[0].channels == 16
    assert equalized.places[0].spread >= 32
    (before,), (after,) = (OnnxRuntimeSession(p).run(inputs) for p in (loud_bottlenecks, equalized.proto))
    assert np.array_equal(before, after)
    assert int8_db(equalized.proto, inputs) > plain - 1


def test_equalization_of_what_a_norm_writes_and_of_attentions_values(transformer, loud, random):
    """SmoothQuant's case: the gain and shift of a LayerNormalization, and the products that read it."""
    inputs = {"x": random(16, 16, 64)}
    planted = loud(transformer, [("gain", 0), ("shift", 0)], [("qkv", 0), ("fc1", 0)], [5, 40, 41])  # both norms
    plain, lost = int8_db(transformer, inputs), int8_db(planted, inputs)
    assert lost < plain - 6
    equalized = equalize(planted, images_of(inputs))
    assert int8_db(equalized.proto, inputs) > plain - 1


def test_a_net_of_even_channels_is_left_alone(graph_of, random):
    nodes = [n("MatMul", ["x", "w"], ["a"]), n("Relu", ["a"], ["b"]), n("MatMul", ["b", "v"], ["y"])]
    proto = graph_of(nodes, {"x": ["N", 32]}, {"y": ["N", 8]}, {"w": random(32, 32), "v": random(32, 8, seed=1)})
    equalized = equalize(proto, images_of({"x": random(64, 32)}))
    assert equalized.changed == 0
    assert equalized.places[0].gain_db == 0


def test_dead_channels_do_no_harm(bottlenecks, random):
    """A channel that is zero throughout, and one whose readers ignore it."""
    for tensor in bottlenecks.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name in ("w0", "b0", "w2", "b2", "w4"):
            values[0] = 0
        if tensor.name in ("w1", "w3", "head"):
            values = np.moveaxis(values, 0 if tensor.name == "head" else 1, 0)
            values[1] = 0
            values = np.moveaxis(values, 0, 0 if tensor.name == "head" else 1)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    inputs = {"x": random(16, 3, 8, 8)}
    equalized = equalize(bottlenecks, images_of(inputs))
    for tensor in equalized.proto.graph.initializer:
        assert np.isfinite(numpy_helper.to_array(tensor)).all()
    (before,), (after,) = (OnnxRuntimeSession(p).run(inputs) for p in (bottlenecks, equalized.proto))
    assert np.array_equal(before, after)


@pytest.mark.parametrize("activation", ["SiLU", "HardSwish"])
def test_equalization_of_a_stream_around_gates_that_no_factor_passes(graph_of, random, loud, activation):
    """An inverted bottleneck with squeeze-excite: its stream is free, what the activation and the gate read is not."""
    gate = [n("Sigmoid", ["e"], ["s"])] if activation == "SiLU" else [n("HardSigmoid", ["e"], ["s"], alpha=1 / 6)]
    nodes = [
        n("Conv", ["x", "w0", "b0"], ["c"], pads=[1] * 4), n("Conv", ["c", "w1"], ["e"]), *gate,
        n("Mul", ["e", "s"], ["h"]), n("Conv", ["h", "d1"], ["f"], group=32, pads=[1] * 4),
        n("ReduceMean", ["f"], ["p"], axes=[2, 3]), n("Conv", ["p", "r"], ["r1"]), n("Relu", ["r1"], ["r2"]),
        n("Conv", ["r2", "q"], ["r3"]), n("Sigmoid", ["r3"], ["g"]), n("Mul", ["f", "g"], ["m"]),
        n("Conv", ["m", "w2", "b2"], ["o"]), n("Add", ["c", "o"], ["t"]), n("GlobalAveragePool", ["t"], ["a"]),
        n("Flatten", ["a"], ["l"]), n("MatMul", ["l", "head"], ["y"]),
    ]  # fmt: skip
    constants = {
        "w0": random(16, 3, 3, 3, seed=1) / 5, "b0": random(16, seed=2) / 5, "w1": random(32, 16, 1, 1, seed=3) / 4,
        "d1": random(32, 1, 3, 3, seed=4) / 3, "r": random(8, 32, 1, 1, seed=5) / 5, "q": random(32, 8, 1, 1, seed=6),
        "w2": random(16, 32, 1, 1, seed=7) / 5, "b2": random(16, seed=8) / 5, "head": random(16, 10, seed=9) / 4,
    }  # fmt: skip
    proto = graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 10]}, constants)
    makers = [("w0", 0), ("b0", 0), ("w2", 0), ("b2", 0)]
    planted = loud(proto, makers, [("w1", 1), ("head", 0)], [2, 9])
    inputs = {"x": random(32, 3, 8, 8)}
    plain, lost = int8_db(proto, inputs), int8_db(planted, inputs)
    assert lost < plain - 12
    equalized = equalize(planted, images_of(inputs))
    (before,), (after,) = (OnnxRuntimeSession(p).run(inputs) for p in (planted, equalized.proto))
    assert np.array_equal(before, after)
    assert int8_db(equalized.proto, inputs) > plain - 1


def test_bias_correction_gives_a_product_its_mean_back(graph_of, random):
    """Weights that all round down, and data with a mean: the output is too small by its hundredth."""
    weights = np.full((16, 4), 0.4 / 127, np.float32)
    weights[0] = 1  # 127 steps; all others are 0.4 of a step, which rounds to nothing
    for bias in (True, False):
        nodes = [n("MatMul", ["x", "w"], ["a" if bias else "y"])]
        nodes += [n("Add", ["a", "b"], ["y"])] if bias else []
        proto = graph_of(nodes, {"x": ["N", 16]}, {"y": ["N", 4]}, {"w": weights, "b": np.ones(4, np.float32)})
        inputs = {"x": 5 + random(64, 16)}
        amax = amax_of(proto, inputs)
        expected = run_exactly(proto, inputs)["y"].mean(axis=0)

        def quantize(model, amax=amax):
            return qdq_model_from_amax(model, amax)

        corrected = with_corrected_biases(proto, proto, quantize, [inputs])
        before, after = (run_exactly(quantize(p), inputs)["y"].mean(axis=0) for p in (proto, corrected))
        assert np.abs(before - expected).min() > 0.2  # 15 * 5 * 0.4 / 127
        assert np.abs(after - expected).max() < 0.02


@pytest.mark.parametrize("kind", ["same", "valid", "grouped", "strided", "dilated", "one dimension"])
def test_convolutions_read_the_patches_that_are_laid_out(graph_of, random, kind):
    """The correction of a convolution needs the mean of what its weights read: rounding is undone in the mean."""
    attributes = {
        "same": {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, "valid": {}, "grouped": {"group": 2, "pads": [1] * 4},
        "strided": {"strides": [2, 1], "pads": [1, 0, 0, 1]}, "dilated": {"dilations": [2, 2], "pads": [2] * 4},
        "one dimension": {"pads": [1, 1]},
    }[kind]  # fmt: skip
    plane = (9,) if kind == "one dimension" else (9, 9)
    kernel = (3,) * len(plane)
    weights = random(4, 2 if kind == "grouped" else 4, *kernel) * 0.3
    weights[:, 0] *= 40  # coarse steps for the rest
    proto = graph_of([n("Conv", ["x", "w"], ["y"], **attributes)], {"x": ["N", 4, *plane]}, {"y": None}, {"w": weights})
    inputs = {"x": 3 + random(8, 4, *plane)}
    amax = amax_of(proto, inputs)
    corrected = with_corrected_biases(proto, proto, lambda p: qdq_model_from_amax(p, amax), [inputs])
    axes = (0, *range(2, 2 + len(plane)))
    expected = run_exactly(proto, inputs)["y"].mean(axis=axes)
    before, after = (
        np.abs(run_exactly(qdq_model_from_amax(p, amax), inputs)["y"].mean(axis=axes) - expected).max()
        for p in (proto, corrected)
    )
    assert after < 0.2 * before


def test_rounding_by_the_output_leaves_less_error_and_keeps_the_scales():
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(48, 48)) * np.exp(-np.arange(48) / 10)[:, None]
    data = np.maximum(generator.normal(size=(4000, 48)) @ mixing, 0)  # inputs that go together
    weights = generator.normal(size=(1, 20, 48))
    scale = np.abs(weights).max(axis=2, keepdims=True) / 127
    found = rounded_weights(weights, (data.T @ data)[None])
    steps = found / scale
    assert np.allclose(steps, np.round(steps), atol=1e-9)
    assert np.allclose(np.abs(steps).max(axis=2), 127)

    def error(rounded):
        return np.square(data @ (weights - rounded)[0].T).sum()

    assert error(found) < 0.6 * error(np.round(weights / scale) * scale)


def test_rounded_weights_of_a_model_stay_what_they_are_in_its_int8_form(bottlenecks, random):
    inputs = {"x": random(32, 3, 8, 8)}
    amax = amax_of(bottlenecks, inputs)
    rounded = with_rounded_weights(bottlenecks, lambda p: qdq_model_from_amax(p, amax), [inputs])
    quantized = qdq_model_from_amax(rounded, amax)
    constants = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
    floats = prepared_for_quantization(rounded).constants
    pairs = [node for node in quantized.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants]
    assert len(pairs) == 7
    for pair in pairs:
        values, scale = (constants[name] for name in pair.input[:2])
        axis = next(a.i for a in pair.attribute if a.name == "axis")
        shape = [-1 if i == axis else 1 for i in range(values.ndim)]
        original = floats[pair.input[0].removesuffix("_quantized")]
        np.testing.assert_allclose(values * scale.reshape(shape), original, atol=1e-3 * scale.max())


def judged(proto, inputs, batches):
    session = OnnxRuntimeSession(proto)

    class Batch:
        labels = None
        names = [""] * len(next(iter(inputs.values())))

    Batch.inputs = inputs
    infos = OnnxModel("net.onnx", proto, "").outputs
    return Judge(session, batches, reader_from_batch(infos, session, Batch))


def test_the_product_that_does_the_harm_comes_first(graph_of, random):
    """The second of three products reads one loud column; the others are alike."""
    spread = random(16, 16, seed=2) / 4
    loud = np.ones(16, np.float32)
    loud[3] = 300
    nodes = [
        n("MatMul", ["x", "w1"], ["a"], name="first"), n("Relu", ["a"], ["b"]), n("Mul", ["b", "loud"], ["c"]),
        n("Sigmoid", ["x"], ["gate"]), n("Mul", ["c", "gate"], ["d"]),
        n("MatMul", ["d", "w2"], ["e"], name="second"), n("Relu", ["e"], ["f"]),
        n("MatMul", ["f", "w3"], ["y"], name="third"),
    ]  # fmt: skip
    second = spread.copy()
    second[3] /= 300
    constants = {"w1": spread, "w2": second, "w3": random(16, 6, seed=4) / 4, "loud": loud}
    proto = graph_of(nodes, {"x": ["N", 16]}, {"y": ["N", 6]}, constants)
    inputs = {"x": random(64, 16)}
    judge = judged(proto, inputs, [inputs])
    macs = macs_of_products(proto, {"x": inputs["x"][:1]})
    assert macs == {"first": 256, "second": 256, "third": 96}
    found = sensitivities(proto, amax_of(proto, inputs), judge, macs)
    assert found[0].group.nodes == ("second",)
    assert found[0].sqnr_db < found[1].sqnr_db - 6
    assert in_order_of_worth(found)[0].name == "second"


def test_macs_of_convolutions(graph_of, random):
    nodes = [
        n("Conv", ["x", "w"], ["a"], name="conv", strides=[2, 2]), n("Conv", ["a", "d"], ["b"], name="dw", group=8),
        n("ConvTranspose", ["b", "t"], ["y"], name="up", strides=[2, 2]),
    ]  # fmt: skip
    constants = {"w": random(8, 3, 3, 3), "d": random(8, 1, 3, 3), "t": random(8, 4, 2, 2)}
    proto = graph_of(nodes, {"x": ["N", 3, 11, 11]}, {"y": None}, constants)
    found = macs_of_products(proto, {"x": random(2, 3, 11, 11)})  # of one image, from a batch of two
    assert found == {"conv": 25 * 8 * 27, "dw": 9 * 8 * 9, "up": 9 * 8 * 4 * 4}


def test_noise_is_that_of_the_quiet_output_too(graph_of, random):
    """Boxes in pixels do not drown scores."""
    nodes = [n("Mul", ["x", "scales"], ["y"])]
    scales = np.repeat([100.0, 0.01], 4).astype(np.float32)[:, None]
    proto = graph_of(nodes, {"x": ["N", 8, 20]}, {"y": ["N", 8, 20]}, {"scales": scales})
    inputs = {"x": random(12, 8, 20)}
    judge = judged(proto, inputs, [{"x": inputs["x"][:8]}, {"x": inputs["x"][8:]}])
    assert judge.images == 12

    class Changed:
        def __init__(self, factor):
            self.factor = factor

        def run(self, batch):
            return [batch["x"] * scales * self.factor]

    quiet = np.ones((8, 1), np.float32)
    quiet[4:] = 1.1
    noise = judge.noise(Changed(quiet))
    assert noise.shape == (12,)
    assert noise.mean() == pytest.approx(0.01, rel=0.01)  # a tenth of the scores
    assert level_db(noise) == pytest.approx(20, abs=0.1)
    assert not judge.noise(Changed(np.float32(1))).any()
    assert np.isinf(judge.noise(Changed(np.float32(np.nan)))).all()


def test_a_gain_is_believed_beyond_chance_only():
    generator = np.random.default_rng(0)
    assert is_beyond_chance(1 + generator.normal(size=100))
    assert sum(is_beyond_chance(generator.normal(size=100)) for _ in range(400)) < 20  # 2.3 % are foreseen
    assert not is_beyond_chance(np.array([1.0]))
    assert not is_beyond_chance(np.zeros(0))
    assert is_beyond_chance(np.array([np.inf, 1.0, 2.0]))  # finite now, and it was not
    assert not is_beyond_chance(np.array([np.inf, -np.inf, 1.0]))
