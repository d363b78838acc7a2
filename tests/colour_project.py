"""A project whose answers are known: images of one colour each, and a model that gives their mean colours."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

COLOURS = {"blue": (20, 30, 200), "green": (30, 190, 20), "red": (210, 20, 30)}
IMAGES_A_CLASS = 12
# minmax: the entropy search needs more values than the pooled colours of 24 images.
CONFIG = 'model = "model.onnx"\ndata = "imgs"\npreprocess = "unit"\nalgo = "minmax"\nnum_images = 24\nbatch_size = 8\n'


def save_graph(graph, path, opset=17):
    """Writes a graph as a model of some opset."""
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def write_model(path, *, batch="N", channels=3, size=8, opset=17, before=(), after=(), constants=None):
    """Writes the colour classifier: logits are the mean blue, green and red of an image.

    `before` nodes make the tensor `pixels` out of `input`; `after` nodes make `features` out of `colours`.
    """

    def constant(name, values):
        return numpy_helper.from_array(np.asarray(values, np.float32), name)

    reverse = np.zeros((3, channels, 1, 1), np.float32)
    for i in range(3):
        reverse[i, (2 - i) % channels] = 1  # RGB to the alphabetical order of the classes
    nodes = [
        *before,
        helper.make_node("Conv", ["pixels" if before else "input", "weight"], ["colours"], name="conv"),
        *after,
        helper.make_node("GlobalAveragePool", ["features" if after else "colours"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "identity", "bias"], ["logits"], transB=1, name="fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, channels, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
        [
            constant("weight", reverse),
            constant("identity", np.eye(3)),
            constant("bias", np.zeros(3)),
            *(constant(name, values) for name, values in (constants or {}).items()),
        ],
    )
    return save_graph(graph, path, opset)


def write_project(project):
    """Three classes of 8x8 images in one colour each, and noise; the classifier; calib.toml."""
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        folder = project / "imgs" / name
        folder.mkdir(parents=True)
        for i in range(IMAGES_A_CLASS):
            pixels = np.clip(np.array(colour) + generator.integers(-15, 16, (8, 8, 3)), 1, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:02}.png")
    write_model(project / "model.onnx")
    (project / "calib.toml").write_text(CONFIG)
