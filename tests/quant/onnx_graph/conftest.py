import numpy as np
import pytest
from onnx import helper


@pytest.fixture
def linear(graph_of):
    """y = x @ w + b with 3 inputs and 2 outputs."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    return graph_of(nodes, {"x": ["N", 3]}, {"y": ["N", 2]}, {"w": np.ones((3, 2), np.float32), "b": [1.0, 2.0]})
