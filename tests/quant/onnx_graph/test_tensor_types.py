import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quant.onnx_graph.tensor_types import activation_names


def test_activations_are_float_inputs_and_float_results_in_the_order_of_the_graph(graph_of):
    nodes = [
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2))),
        helper.make_node("Mul", ["x", "two"], ["doubled"]),
        helper.make_node("Shape", ["doubled"], ["shape"]),
        helper.make_node("Cast", ["ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Dropout", ["doubled"], ["kept", "mask"]),
        helper.make_node("Add", ["kept", "w"], ["sum"]),
        helper.make_node("Add", ["sum", "floats"], ["y"]),
    ]
    kinds = {"ids": TensorProto.INT64, "shape": TensorProto.INT64}
    proto = graph_of(
        nodes, {"ids": ["N", 2], "x": ["N", 2]}, {"y": ["N", 2], "shape": [2]}, {"w": [1.0, 2.0]}, kinds=kinds
    )
    onnx.checker.check_model(proto, full_check=True)
    assert activation_names(proto) == ["x", "doubled", "floats", "kept", "sum", "y"]


def test_a_model_on_which_inference_fails_has_the_types_it_declares():
    """An input that is declared a text has the values of a float weight."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 3] input, string bias) => (float[N, 3] output) { sum = Add(input, bias) output = Relu(sum) }"""
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3, np.float32), "bias"))
    assert list(activation_names(model)) == ["input", "sum", "output"]
