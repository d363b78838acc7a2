"""A project whose objects are known: coloured squares on dark images, and a detector made by hand, in YOLO v8's form.

An image is twice as wide as the model's input is, so that it is letterboxed: boxes fit the labels only once that is
undone. Squares fill a cell of the model's grid, red ones are of class 0 and green ones of class 1; a score is how much
of its cell is of the class's colour.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIZE, CELL = 64, 8  # of the model's input and grid, pixels
CELLS = SIZE // CELL
NAMES = ("red", "green")
METADATA = {"names": "{0: 'red', 1: 'green'}", "imgsz": f"[{SIZE}, {SIZE}]", "task": "detect", "stride": "8"}


def write_model(path, *, metadata=METADATA, names=("images", "output0"), outputs=1):
    """Writes the detector; with two outputs, boxes and scores are apart."""
    rng = np.random.default_rng(0)
    body = np.zeros((4, 3, 3, 3), np.float32)
    body[[0, 1], [0, 1], 1, 1] = 1  # red and green as they are
    body[2:] = rng.normal(0, 0.05, (2, 3, 3, 3))
    score = np.zeros((2, 4, CELL, CELL), np.float32)
    score[0, 0], score[0, 1], score[1, 1], score[1, 0] = 14, -14, 14, -14
    box = rng.normal(0, 1e-3, (4, 4, CELL, CELL)).astype(np.float32)
    y, x = np.mgrid[:CELLS, :CELLS]
    centres = np.stack([(x.ravel() + 0.5) * CELL, (y.ravel() + 0.5) * CELL])
    anchors = np.concatenate([centres, np.full_like(centres, CELL)])[None].astype(np.float32)
    constants = {
        "w0": body, "w1": np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1) + np.float32(0.01), "wc": score / CELL**2,
        "bc": np.full(2, -5, np.float32), "wb": box / CELL**2, "anchors": anchors,
        "boxes_shape": np.array([0, 4, CELLS**2]), "scores_shape": np.array([0, 2, CELLS**2]),
    }  # fmt: skip
    n = helper.make_node
    nodes = [
        n("Conv", [names[0], "w0"], ["a"], pads=[1, 1, 1, 1], name="stem"),
        n("Relu", ["a"], ["b"]),
        n("Conv", ["b", "w1"], ["c"], name="body"),
        n("Relu", ["c"], ["d"]),
        n("Conv", ["d", "wb"], ["offsets"], strides=[CELL, CELL], name="boxes.conv"),
        n("Conv", ["d", "wc", "bc"], ["logits"], strides=[CELL, CELL], name="scores.conv"),
        n("Reshape", ["offsets", "boxes_shape"], ["flat"]),
        n("Add", ["flat", "anchors"], ["boxes"]),
        n("Reshape", ["logits", "scores_shape"], ["flat_logits"]),
        n("Sigmoid", ["flat_logits"], ["scores"]),
        *([n("Concat", ["boxes", "scores"], [names[1]], axis=1)] if outputs == 1 else []),
    ]
    made = {names[1]: 6} if outputs == 1 else {"boxes": 4, "scores": 2}
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, ["N", 3, "h", "w"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", rows, CELLS**2]) for name, rows in made.items()],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)


def write_image(rng, path, label_path, *, wide=2):
    """An image of `wide` times the model's size and half as high, and its labels; some squares lie off their cell."""
    scale = wide
    width, height = SIZE * scale, SIZE * scale // 2
    image = rng.integers(0, 30, (height, width, 3)).astype(np.uint8)
    lines = []
    cells = [(row, column) for row in range(0, CELLS // 2, 2) for column in range(0, CELLS, 2)]
    for place in rng.choice(len(cells), rng.integers(1, 5), replace=False):
        row, column = cells[place]
        side, label = CELL * scale, int(rng.integers(0, 2))
        left, top = column * side + int(rng.integers(0, 3)), row * side + int(rng.integers(0, 3))
        image[top : top + side, left : left + side, label] = rng.integers(120, 255)
        lines.append(f"{label} {(left + side / 2) / width} {(top + side / 2) / height} {side / width} {side / height}")
    path.parent.mkdir(parents=True, exist_ok=True)
    label_path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    label_path.write_text("\n".join(lines))


def write_project(project, images=16):
    """images/ and labels/ with train and val, data.yaml, model.onnx, calib.toml."""
    rng = np.random.default_rng(1)
    for split in ("train", "val"):
        for i in range(images):
            write_image(rng, project / f"images/{split}/{i:02}.png", project / f"labels/{split}/{i:02}.txt")
    write_model(project / "model.onnx")
    names = ", ".join(f"{i}: {name}" for i, name in enumerate(NAMES))
    (project / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {{{names}}}\n")
    (project / "calib.toml").write_text('model = "model.onnx"\ndata = "data.yaml"\nbatch_size = 8\nnum_images = 16\n')
