"""Whole runs of unusual graphs: INT8 is built where it can be, and what a user should know is said."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from quant import run
from quant.errors import BuildError
from quant.jobs.sweep import sweep
from quant.onnx_graph.model import load_model
from quant.progress import RecordingConsole
from quant.settings.run_settings import RunSettings
from tests.int8_oracle import run_exactly, sqnr_db

n = helper.make_node
PARTS = ("scale", "shift", "mean", "var")


@pytest.fixture
def ran(tmp_path, graph_of):
    """Runs a graph on 24 noisy images of 8x8 pixels; returns the report, its warnings and the folder of its files."""
    (tmp_path / "imgs").mkdir()
    generator = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / "imgs" / f"{i}.png")

    def go(proto, job=run, **options):
        onnx.save(proto, tmp_path / "model.onnx")
        console = RecordingConsole()
        settings = {"preprocess": "unit", "algo": "minmax", "num_images": 16, "batch_size": 4, "backend": "onnxruntime"}
        out = tmp_path / "out"
        paths = {"model": tmp_path / "model.onnx", "data": tmp_path / "imgs", "out": out}
        document = job(RunSettings(**paths, **(settings | options)), console)
        return document, "\n".join(console.warnings), out

    return go


def images():
    return {"x": np.random.default_rng(1).uniform(size=(4, 3, 8, 8)).astype(np.float32)}


def assert_int8_is_right(proto, folder, least=25, **inputs):
    """The file that was written is valid and answers as the model does."""
    model = load_model(folder / "model.int8.onnx").proto
    onnx.checker.check_model(model, full_check=True)
    inputs = inputs or images()
    name = proto.graph.output[0].name
    assert sqnr_db(run_exactly(model, inputs)[name], run_exactly(proto, inputs)[name]) > least


def classifier(graph_of, random, nodes, constants=None, *, outputs=None, kinds=None, opset=17):
    """Nodes make `b` [N, 4, H, W] out of `c` [N, 4, 6, 6]; five classes."""
    nodes = [
        n("Conv", ["x", "w"], ["c"], name="first"),
        *nodes,
        n("GlobalMaxPool", ["b"], ["p"]),
        n("Flatten", ["p"], ["f"]),
        n("MatMul", ["f", "v"], ["y"], name="last"),
    ]
    given = {"w": random(4, 3, 3, 3, seed=1), "v": random(4, 5, seed=2)} | (constants or {})
    outputs = {"y": ["N", 5]} | (outputs or {})
    return graph_of(nodes, {"x": ["N", 3, 8, 8]}, outputs, given, kinds=kinds, opset=opset)


def test_a_model_in_training_mode_with_products_of_doubles_is_warned_of_and_quantized(ran, graph_of, random):
    # No two are equal: ONNX Runtime would share them, and in training mode it writes into the mean and the variance.
    parts = {name: np.full(4, value, np.float32) for name, value in zip(PARTS, (1, 0.5, 0.25, 2), strict=True)}
    nodes = [
        n("BatchNormalization", ["c", *parts], ["t", "new_mean", "new_var"], training_mode=1),
        n("Transpose", ["t"], ["rows"], perm=[0, 2, 3, 1]),
        n("Cast", ["rows"], ["d"], to=TensorProto.DOUBLE),
        n("MatMul", ["d", "m"], ["e"]),
        n("Cast", ["e"], ["g"], to=TensorProto.FLOAT),
        n("Transpose", ["g"], ["b"], perm=[0, 3, 1, 2]),
    ]
    proto = classifier(graph_of, random, nodes, parts | {"m": np.eye(4)}, opset=15)
    document, warnings, out = ran(proto)
    assert "1 BatchNormalization nodes are in training mode: the model computes with the statistics of each" in warnings
    assert "1 of 3 products stay float: 1 MatMul of another type than float32" in warnings
    assert not document["failed_builds"]
    assert_int8_is_right(proto, out)


def test_a_network_that_conversion_changes_has_no_int8_form_and_the_step_is_named(ran, graph_of, random):
    nodes = [n("Hardmax", ["c"], ["h"], axis=1), n("Mul", ["c", "h"], ["b"])]
    document, warnings, out = ran(classifier(graph_of, random, nodes, opset=11))
    assert "int8 cannot be built: the conversion from opset 11 to 13 changes what the model computes" in warnings
    assert "recalibrate" not in warnings
    assert not (out / "model.int8.onnx").exists()
    assert [build["precision"] for build in document["failed_builds"]] == ["int8"]


def test_a_sweep_of_a_network_that_conversion_changes_ends_with_the_step(ran, graph_of, random):
    """The algorithms would be ranked by how well another network does."""
    nodes = [n("Hardmax", ["c"], ["h"], axis=1), n("Mul", ["c", "h"], ["b"])]
    with pytest.raises(BuildError, match=r"^the conversion from opset 11 to 13 changes what the model computes"):
        ran(classifier(graph_of, random, nodes, opset=11), job=sweep)


def test_masks_and_forbidden_classes_of_minus_infinity_do_not_stop_a_run(ran, graph_of, random):
    mask = np.where(np.eye(4) > 0, 0, -np.inf).astype(np.float32)
    nodes = [
        n("Reshape", ["c", "rows"], ["r"]),
        n("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        n("MatMul", ["r", "t"], ["scores"]),
        n("Add", ["scores", "mask"], ["masked"]),
        n("Softmax", ["masked"], ["s"], axis=-1),
        n("MatMul", ["s", "r"], ["mixed"]),
        n("Reshape", ["mixed", "map"], ["b"]),
    ]
    constants = {"mask": mask, "rows": np.array([-1, 4, 36]), "map": np.array([-1, 4, 6, 6])}
    constants |= {"allowed": np.arange(5) != 2, "minus": np.float32(-np.inf)}
    proto = classifier(graph_of, random, nodes, constants)
    proto.graph.node.append(n("Where", ["allowed", "y", "minus"], ["logits"]))
    proto.graph.output[0].name = "logits"
    document, warnings, out = ran(proto)
    assert not document["failed_builds"]
    assert "infinite" not in warnings
    cache = (out / "calibration.cache").read_text()
    assert "masked:" not in cache and "logits:" not in cache and "scores:" in cache
    model = load_model(out / "model.int8.onnx").proto
    found, expected = (run_exactly(graph, images())["logits"] for graph in (model, proto))
    assert (found[:, 2] == -np.inf).all()
    assert sqnr_db(np.delete(found, 2, 1), np.delete(expected, 2, 1)) > 25


def test_weights_for_each_head_run_although_the_deployed_form_may_not(ran, graph_of, random):
    nodes = [
        n("Reshape", ["c", "heads"], ["h"]),
        n("MatMul", ["h", "m"], ["k"]),
        n("Reshape", ["k", "map"], ["b"]),
    ]
    constants = {"heads": np.array([-1, 4, 6, 6]), "m": random(4, 6, 6, seed=5), "map": np.array([-1, 4, 6, 6])}
    proto = classifier(graph_of, random, nodes, constants)
    document, _, out = ran(proto)
    assert not document["failed_builds"]
    assert_int8_is_right(proto, out)


def test_a_shape_for_one_image_inside_a_graph_that_declares_any_batch_does_not_stop_a_run(ran, graph_of, random):
    nodes = [n("Reshape", ["c", "one"], ["b"])]
    proto = classifier(graph_of, random, nodes, {"one": np.array([1, 4, 6, 6])})
    document, _, out = ran(proto)
    assert not document["failed_builds"]
    assert_int8_is_right(proto, out, x=images()["x"][:1])


def test_a_number_of_boxes_that_depends_on_the_images_does_not_cost_the_int8_model(ran, graph_of, random):
    nodes = [
        n("Identity", ["c"], ["b"]),
        n("Reshape", ["c", "boxes"], ["bx"]),
        n("Reshape", ["c", "scores"], ["sc"]),
        n("NonMaxSuppression", ["bx", "sc", "most", "overlap", "least"], ["kept"]),
    ]
    constants = {"boxes": np.array([-1, 36, 4]), "scores": np.array([-1, 1, 144]), "most": np.array([9])}
    constants |= {"overlap": np.float32(0.1), "least": np.float32(0.2)}
    constants["scores"] = np.array([-1, 4, 36])
    kinds = {"kept": TensorProto.INT64}
    proto = classifier(graph_of, random, nodes, constants, outputs={"kept": [None, 3]}, kinds=kinds)
    document, warnings, out = ran(proto)
    assert "output 'kept' is not compared: its size depends on the images" in warnings
    assert not document["failed_builds"]
    assert_int8_is_right(proto, out)
