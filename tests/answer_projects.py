"""Projects whose networks answer with a vector or a picture: their answers follow from the images' mean colours."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIDE = 16


def write_images(folder, colours, names=None):
    """Plain images of these colours, with a little noise: 000.png and so on."""
    rng = np.random.default_rng(0)
    for i, colour in enumerate(colours):
        path = folder / (names[i] if names else f"{i:03}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(np.array(colour) + rng.normal(0, 3, (SIDE, SIDE, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_model(path, weights, bias=None, *, end=(), output="y", shape=None):
    """A network with a convolution, the mean over the image, and a product.

    Args:
        path: Where.
        weights: [3, K] of the product: what mean red, green and blue, 0 to 1, become.
        bias: [K].
        end: Nodes behind it, which read `z` and write the output's name.
        output: Its name.
        shape: Of the output behind its axis of images; [K] by default.
    """
    weights = np.asarray(weights, np.float32)
    n = helper.make_node
    identity = np.zeros((3, 3, 3, 3), np.float32)
    identity[[0, 1, 2], [0, 1, 2], 1, 1] = 1
    constants = {
        "w0": identity, "w1": weights, "b1": np.zeros(weights.shape[1], np.float32) if bias is None else bias,
    }  # fmt: skip
    nodes = [
        n("Conv", ["input", "w0"], ["a"], pads=[1, 1, 1, 1], name="stem"),
        n("GlobalAveragePool", ["a"], ["b"]),
        n("Flatten", ["b"], ["c"]),
        n("Gemm", ["c", "w1", "b1"], ["z" if end else output], name="product"),
        *end,
    ]
    graph = helper.make_graph(
        nodes,
        "answers",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", *(shape or [weights.shape[1]])])],
        [numpy_helper.from_array(np.asarray(values, np.float32), name) for name, values in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def write_enlarger(path, channels=3):
    """A network that doubles a picture's sides: a convolution, then DepthToSpace."""
    weights = np.zeros((channels * 4, channels, 3, 3), np.float32)
    for i in range(4 * channels):
        weights[i, i // 4, 1, 1] = 1
    n = helper.make_node
    nodes = [
        n("Conv", ["input", "w"], ["a"], pads=[1, 1, 1, 1], name="up"),
        n("DepthToSpace", ["a"], ["picture"], blocksize=2, mode="CRD"),
    ]
    graph = helper.make_graph(
        nodes,
        "enlarger",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", channels, SIDE, SIDE])],
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", channels, 2 * SIDE, 2 * SIDE])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
