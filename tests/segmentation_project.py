"""A project whose masks are known: coloured rectangles on dark images, and a network made by hand that tells colours.

An image is twice as wide as the model's input is, so that its geometry matters. Class 0 is the background, 1 red, 2
green; a ring of 255, which counts for nothing, lies around every rectangle in its mask.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIZE = 32
NAMES = ("background", "red", "green")


def write_model(path, *, output="logits", step=1):
    """Writes the network.

    Args:
        path: Where.
        output: logits of three classes; numbers (int64) or float numbers of the classes; sigmoid or logit, which tell
            red from all else in one channel.
        step: Of the map's grid, pixels of the input.
    """
    rng = np.random.default_rng(0)
    body = np.zeros((6, 3, 3, 3), np.float32)
    body[[0, 1, 2], [0, 1, 2], 1, 1] = 1
    body[3:] = rng.normal(0, 0.05, (3, 3, 3, 3))
    score = np.zeros((3, 6, 1, 1), np.float32)
    score[:, :3, 0, 0] = [[-6, -6, 0], [8, -8, 0], [-8, 8, 0]]
    bias = np.array([2, -3, -3], np.float32)
    if output in ("sigmoid", "logit"):
        score, bias = score[1:2], bias[1:2]
    n = helper.make_node
    nodes = [
        n("Conv", ["input", "w0"], ["a"], pads=[1, 1, 1, 1], name="stem"),
        n("Relu", ["a"], ["b"]),
        n("Conv", ["b", "w1"], ["c"], name="body"),
        n("Relu", ["c"], ["d"]),
        *([n("AveragePool", ["d"], ["e"], kernel_shape=[step] * 2, strides=[step] * 2)] if step > 1 else []),
        n("Conv", ["e" if step > 1 else "d", "w2", "b2"], ["map" if output != "logits" else "out"], name="head"),
    ]
    kind, shape = TensorProto.FLOAT, ["N", len(score), SIZE // step, SIZE // step]
    if output == "sigmoid":
        nodes.append(n("Sigmoid", ["map"], ["out"]))
    elif output == "logit":
        nodes.append(n("Identity", ["map"], ["out"]))
    elif output != "logits":
        nodes.append(n("ArgMax", ["map"], ["out" if output == "numbers" else "most"], axis=1, keepdims=0))
        kind, shape = TensorProto.INT64, ["N", SIZE // step, SIZE // step]
        if output == "float numbers":
            nodes.append(n("Cast", ["most"], ["out"], to=TensorProto.FLOAT))
            kind = TensorProto.FLOAT
    constants = {"w0": body, "w1": np.eye(6, dtype=np.float32).reshape(6, 6, 1, 1), "w2": score, "b2": bias}
    graph = helper.make_graph(
        nodes,
        "segmenter",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("out", kind, shape)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def write_image(rng, path, mask_path):
    """An image of 64 x 32 pixels (width x height) with one or two rectangles, some too faint, and its mask."""
    height, width = SIZE, 2 * SIZE
    image = rng.integers(0, 30, (height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    for left in rng.choice([2, 34], rng.integers(1, 3), replace=False):
        top, label = int(rng.integers(2, 10)), int(rng.integers(1, 3))
        bottom, right = top + int(rng.integers(8, 18)), left + int(rng.integers(10, 26))
        mask[top - 1 : bottom + 1, left - 1 : right + 1] = 255
        mask[top:bottom, left:right] = label
        image[top:bottom, left:right, label - 1] = rng.integers(70, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    mask_path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    Image.fromarray(mask).save(mask_path)


def write_project(project, images=24):
    """images/, masks/, model.onnx, classes.txt, preprocess.toml, calib.toml."""
    rng = np.random.default_rng(1)
    for i in range(images):
        write_image(rng, project / f"images/{i:02}.png", project / f"masks/{i:02}.png")
    write_model(project / "model.onnx")
    (project / "classes.txt").write_text("\n".join(NAMES))
    (project / "preprocess.toml").write_text('preset = "unit"\n')
    (project / "calib.toml").write_text(
        'model = "model.onnx"\ndata = "images"\npreprocess = "preprocess.toml"\nbatch_size = 8\nnum_images = 12\n'
        'backend = "onnxruntime"\nalgo = "minmax"\n'
    )
