"""What prepared and quantized models are held against: the given model on ONNX Runtime with all optimisations off."""

import numpy as np
import onnx
import onnxruntime

from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.writer import qdq_model_from_amax, quantizable_tensors


def run_exactly(proto, inputs, also=()):
    """All outputs of a model by name, and those tensors of it that are named in `also`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    present = {value.name for value in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in also if name not in {*present, *inputs})
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return {**inputs, **dict(zip(names, session.run(None, inputs), strict=True))}


def sqnr_db(found, expected):
    """Signal to noise of one array, dB; infinite where both are equal."""
    expected = np.asarray(expected, np.float64)
    noise = np.square(expected - found).sum()
    return float(10 * np.log10(np.square(expected).sum() / noise)) if noise else np.inf


def amax_of(proto, inputs):
    """The largest magnitude of each tensor that needs a scale, under the name that the given model has for it."""
    needed = quantizable_tensors(proto)
    values = run_exactly(proto, inputs, also=needed)
    return {name: float(np.abs(values[name]).max()) for name in needed}


def int8_of(proto, inputs):
    """The INT8 model with scales of these inputs; the checker accepts it."""
    quantized = qdq_model_from_amax(proto, amax_of(proto, inputs))
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def int8_db(proto, inputs):
    """The lowest SQNR of the outputs of the INT8 model, computed as it is written."""
    expected, found = run_exactly(proto, inputs), run_exactly(int8_of(proto, inputs), inputs)
    return min(sqnr_db(found[value.name], expected[value.name]) for value in proto.graph.output)


def assert_preparation_keeps(proto, inputs):
    """What comes before quantization is valid, and changes no output by more than rounding; returns its nodes."""
    prepared = prepared_for_quantization(proto).model()
    onnx.checker.check_model(prepared, full_check=True)
    expected, found = run_exactly(proto, inputs), run_exactly(prepared, inputs)
    for value in proto.graph.output:
        size = np.abs(expected[value.name]).max()
        np.testing.assert_allclose(found[value.name], expected[value.name], rtol=1e-5, atol=1e-5 * size)
    return list(prepared.graph.node)
