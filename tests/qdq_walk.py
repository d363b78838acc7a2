"""Reading a Q/DQ model node by node, and what TensorRT requires of it."""

from collections import Counter

import numpy as np
from onnx import numpy_helper

KERNELS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Nodes that TensorRT fuses with the node before them: a pair in between would split the two.
FUSED = ("BatchNormalization", "Relu", "Clip")


class Walk:
    """A Q/DQ model with everything needed to walk through it."""

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
        """Check what TensorRT's explicit quantization requires of a model."""
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
