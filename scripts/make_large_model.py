"""Write a model of any size: ten large MatMuls in a chain with Relu between them, with random weights.

    python scripts/make_large_model.py model.onnx --gigabytes 2.5

The weights lie beside the model in model.onnx.weights, or below 2 GB in its own file. Input: `x`, float32
[N, 3, 32, 32]; output: `y`, float32 [N, 10]. The answers mean nothing.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

PRODUCTS, PIXELS = 10, 3 * 32 * 32


def write_model(path, size, *, one_file):
    """A chain of products with Relu between them, and its weights, written one at a time."""
    width = int((np.sqrt(PIXELS**2 + (PRODUCTS - 1) * size) - PIXELS) / (2 * (PRODUCTS - 1)))
    shapes = [(PIXELS, width), *[(width, width)] * (PRODUCTS - 1), (width, 10)]
    model = onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)])
    graph, random = model.graph, np.random.default_rng(0)
    graph.name = "products"
    graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32]))
    graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10]))
    graph.node.append(helper.make_node("Flatten", ["x"], ["t0"]))
    with Path(os.devnull if one_file else f"{path}.weights").open("wb") as file:
        for i, shape in enumerate(shapes):
            weight = random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / shape[0]))
            tensor = graph.initializer.add(name=f"w{i}", data_type=TensorProto.FLOAT, dims=shape)
            if one_file:
                tensor.raw_data = weight.tobytes()
            else:
                tensor.data_location = TensorProto.EXTERNAL
                place = {"location": f"{path.name}.weights", "offset": file.tell(), "length": weight.nbytes}
                for key, value in place.items():
                    tensor.external_data.add(key=key, value=str(value))
                file.write(weight.data)
            last = i == len(shapes) - 1
            graph.node.append(helper.make_node("MatMul", [f"t{i}", f"w{i}"], ["y" if last else f"p{i}"], name=f"m{i}"))
            if not last:
                graph.node.append(helper.make_node("Relu", [f"p{i}"], [f"t{i + 1}"]))
    path.write_bytes(model.SerializeToString())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--gigabytes", type=float, default=2.5, help="size of the model, 1e9 bytes")
    parser.add_argument("--one-file", action="store_true", help="weights in the model's own file")
    options = parser.parse_args()
    write_model(options.model, options.gigabytes * 1e9, one_file=options.one_file)


if __name__ == "__main__":
    main()
