"""Models out of nodes, for tests."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def graph_of(nodes, inputs, outputs, constants=None, *, kinds=None, opset=17):
    """A model out of nodes, shapes of inputs and outputs by name, and constants by name.

    Inputs and outputs are float32, or of the element type that `kinds` has for the name.
    """

    def value(name, shape):
        return helper.make_tensor_value_info(name, (kinds or {}).get(name, TensorProto.FLOAT), shape)

    graph = helper.make_graph(
        nodes,
        "graph",
        [value(name, shape) for name, shape in inputs.items()],
        [value(name, shape) for name, shape in outputs.items()],
        [
            numpy_helper.from_array(np.asarray(array, None if hasattr(array, "dtype") else np.float32), name)
            for name, array in (constants or {}).items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
