"""Q/DQ models as a whole: valid, explicit, of models that can be quantized and of no others."""

import numpy as np
import onnx
import pytest
from onnx import helper

from quant.errors import BuildError
from quant.onnx_graph.half_precision import half_model
from quant.onnx_graph.model import load_model
from quant.qdq.writer import qdq_model_from_amax, quantizable_tensors
from tests.qdq_walk import Walk


def test_the_residual_net_is_explicit_and_valid(residual_net, ones):
    quantized = qdq_model_from_amax(residual_net, ones(residual_net))
    onnx.checker.check_model(quantized, full_check=True)
    Walk(quantized).assert_explicit()
    assert quantizable_tensors(residual_net) == ["input", "relu1", "relu2", "flat", "hidden"]


def test_the_model_that_was_given_is_not_edited(residual_net, ones):
    before = residual_net.SerializeToString()
    qdq_model_from_amax(residual_net, ones(residual_net))
    assert residual_net.SerializeToString() == before


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
    with pytest.raises(BuildError, match="the model is already quantized; give the FP32 model"):
        qdq_model_from_amax(quantized, ones(quantized))


def test_a_model_with_int8_weights_alone_is_refused_too(graph_of, ones):
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"], axis=1),
        helper.make_node("MatMul", ["x", "wf"], ["y"]),
    ]
    constants = {"w": np.ones((3, 2), np.int8), "s": np.ones(2, np.float32), "z": np.zeros(2, np.int8)}
    proto = graph_of(nodes, {"x": ["N", 3]}, {"y": ["N", 2]}, constants)
    with pytest.raises(BuildError, match="already quantized"):
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
