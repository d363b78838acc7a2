"""Nets whose channels can be made loud without changing what they compute."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

n = helper.make_node


@pytest.fixture
def loud():
    """Makes an input channel of weights 64 times less sensitive, and what makes it 64 times louder, by name."""

    def make(proto, makers, readers, channels, factor=64.0):
        """`makers` and `readers` are (constant, axis); all in one group."""
        result = onnx.ModelProto()
        result.CopyFrom(proto)
        for names, scale in ((makers, factor), (readers, 1 / factor)):
            for name, axis in names:
                (tensor,) = [t for t in result.graph.initializer if t.name == name]
                values = np.moveaxis(numpy_helper.to_array(tensor).copy(), axis, 0)
                values[list(channels)] *= scale
                tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(np.moveaxis(values, 0, axis)), name))
        return result

    return make


@pytest.fixture
def bottlenecks(graph_of, random):
    """Two inverted bottlenecks with a linear residual stream `stream`, as MobileNetV2 has them; ten classes."""
    constants = {
        "w0": random(16, 3, 3, 3, seed=1) / 5, "b0": random(16, seed=2) / 5,
        "w1": random(48, 16, 1, 1, seed=3) / 4, "d1": random(48, 1, 3, 3, seed=4) / 3,
        "w2": random(16, 48, 1, 1, seed=5) / 7, "b2": random(16, seed=6) / 5,
        "w3": random(48, 16, 1, 1, seed=7) / 4, "w4": random(16, 48, 1, 1, seed=8) / 7,
        "head": random(16, 10, seed=9) / 4, "zero": np.float32(0), "six": np.float32(6),
    }  # fmt: skip
    nodes = [
        n("Conv", ["x", "w0", "b0"], ["c0"], pads=[1] * 4, name="stem"),
        n("Conv", ["c0", "w1"], ["e1"], name="expand1"), n("Clip", ["e1", "zero", "six"], ["k1"]),
        n("Conv", ["k1", "d1"], ["f1"], group=48, pads=[1] * 4, name="depthwise"),
        n("Clip", ["f1", "zero", "six"], ["g1"]),
        n("Conv", ["g1", "w2", "b2"], ["p1"], name="project1"), n("Add", ["c0", "p1"], ["s1"]),
        n("Conv", ["s1", "w3"], ["e2"], name="expand2"), n("Clip", ["e2", "zero", "six"], ["k2"]),
        n("Conv", ["k2", "w4"], ["p2"], name="project2"), n("Add", ["s1", "p2"], ["s2"]),
        n("GlobalAveragePool", ["s2"], ["a"]), n("Flatten", ["a"], ["f"]), n("MatMul", ["f", "head"], ["y"]),
    ]  # fmt: skip
    return graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 10]}, constants)


@pytest.fixture
def loud_bottlenecks(bottlenecks, loud):
    """The same with two loud channels of 16 in the stream."""
    makers = [("w0", 0), ("b0", 0), ("w2", 0), ("b2", 0), ("w4", 0)]
    return loud(bottlenecks, makers, [("w1", 1), ("w3", 1), ("head", 0)], [3, 11])
