"""Write a ResNet-50 with random weights, to measure calibration on large images.

    python scripts/make_resnet50.py resnet50.onnx

The architecture is that of He et al., "Deep Residual Learning for Image Recognition" (2015), with the stride in the 3x3
convolution and BatchNormalization already folded. The network's answers mean nothing, but its cost is realistic.
"""

import argparse

import numpy as np
import onnx
from onnx import helper, numpy_helper

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride of the first block
EXPANSION = 4


class Network:
    """Nodes and weights, in the order in which they were added."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.constants = [], []

    def node(self, kind, *inputs, **attributes):
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, values):
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def convolution(self, data, channels, outputs, kernel=1, stride=1, gain=1.0):
        spread = gain * np.sqrt(2 / (channels * kernel**2))
        weight = self.constant(self.random.normal(0, spread, (outputs, channels, kernel, kernel)))
        bias = self.constant(self.random.normal(0, 0.1, outputs))
        side = kernel // 2
        return self.node("Conv", data, weight, bias, strides=[stride] * 2, pads=[side] * 4, kernel_shape=[kernel] * 2)

    def bottleneck(self, data, channels, width, stride):
        outputs = EXPANSION * width
        x = self.node("Relu", self.convolution(data, channels, width))
        x = self.node("Relu", self.convolution(x, width, width, 3, stride))
        x = self.convolution(x, width, outputs, gain=0.3)  # a small residual keeps activations from growing
        if channels != outputs or stride != 1:
            data = self.convolution(data, channels, outputs, stride=stride)
        return self.node("Relu", self.node("Add", x, data)), outputs


def resnet50(classes=1000, size=224, seed=0):
    """An ONNX model: `input` float32 [N, 3, size, size] to `logits` float32 [N, classes]."""
    network = Network(seed)
    x = network.node("Relu", network.convolution("input", 3, 64, 7, 2))
    x, channels = network.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 64
    for width, blocks, stride in STAGES:
        for block in range(blocks):
            x, channels = network.bottleneck(x, channels, width, stride if block == 0 else 1)
    x = network.node("Flatten", network.node("GlobalAveragePool", x))
    weight = network.constant(network.random.normal(0, channels**-0.5, (classes, channels)))
    last = helper.make_node(
        "Gemm", [x, weight, network.constant(np.zeros(classes))], ["logits"], name="classifier", transB=1
    )
    graph = helper.make_graph(
        [*network.nodes, last],
        "resnet50",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["N", 3, size, size])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", classes])],
        network.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    onnx.save_model(resnet50(seed=options.seed), options.path)


if __name__ == "__main__":
    main()
