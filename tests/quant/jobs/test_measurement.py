"""Measuring builds beside their baseline: ONNX Runtime, images on disk, answers that can be told by hand."""

import contextlib

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from datasets import open_source
from quant.calibration.run_data import evaluation_data
from quant.evaluation.metric import recorder_from_settings
from quant.jobs.measurement import evaluated, first_batch, measured
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.progress import RecordingConsole
from quant.settings.run_settings import RunSettings

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


class Console(RecordingConsole):
    """Keeps what tasks there were, and how many images each said to be done."""

    def __init__(self):
        super().__init__()
        self.tasks = []

    @contextlib.contextmanager
    def task(self, description, total):
        done = []
        self.tasks.append((description, total, done))
        yield done.append


@pytest.fixture
def model_of(saved, graph_of):
    """A model whose logits are the brightness of an image's blue, green and red, each times a factor of its class."""

    def make(*factors):
        weight = np.zeros((3, 3, 1, 1))
        for i, factor in enumerate(factors):
            weight[i, 2 - i] = factor
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("GlobalAveragePool", ["c"], ["p"]),
            helper.make_node("Flatten", ["p"], ["logits"]),
        ]
        constants = {"w": weight.astype(np.float32)}
        return saved(graph_of(nodes, {"x": ["N", 3, 4, 4]}, {"logits": ["N", 3]}, constants))

    return make


@pytest.fixture
def settings(tmp_path):
    """Settings of an evaluation in batches of 4 images."""
    metric = tmp_path / "metric.py"
    metric.write_text("def red(outputs, labels):\n    return outputs['logits'][:, 2]\n")
    return RunSettings(preprocess="unit", batch_size=4, max_bad=0.2, max_drop=10.0, seed=7, metric=f"{metric}:red")


@pytest.fixture
def images(tmp_path):
    """Two images of each colour."""
    for name, colour in COLOURS.items():
        (tmp_path / "imgs" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (4, 4), colour).save(tmp_path / "imgs" / name / f"{i}.png")
    return tmp_path / "imgs"


@pytest.fixture
def builds(model_of):
    """A model that is right on all images, and one that takes red for the least likely class."""
    good, bad = model_of(1, 1, 1), model_of(1, 1, -0.5)
    return good, {"int8": OnnxRuntimeSession(bad.proto), "fp32": OnnxRuntimeSession(good.proto)}


def test_builds_are_held_against_their_baseline_on_the_same_images(builds, images, settings):
    model, runnables = builds
    data = evaluation_data(open_source(images), settings, model)
    recorder = recorder_from_settings(settings, model)
    found = measured(runnables, "fp32", data, settings, RecordingConsole(), recorder)
    assert {name: evaluation.top1 for name, evaluation in found.evaluations.items()} == {
        "fp32": 100,
        "int8": pytest.approx(100 * 4 / 6),
    }
    assert list(found.drops) == ["int8"]
    assert (found.drops["int8"].points, found.drops["int8"].lost) == (pytest.approx(100 / 3), 2)
    # The metric: 1 for two of six images, -0.5 for the same two of the other build; a drop of 1.5 times 1 / 3.
    full, less = found.metric["builds"]
    assert (full["precision"], full["score"]) == ("fp32", pytest.approx(1 / 3))
    assert (less["precision"], less["drop"]) == ("int8", pytest.approx(0.5))
    assert found.metric["seed"] == 7
    assert found.metric["allowed_drop"] == pytest.approx(1 / 30)
    assert {name: latency.batch for name, latency in found.latencies.items()} == {"fp32": 4, "int8": 4}
    assert all(latency.milliseconds > 0 and latency.runs >= 5 for latency in found.latencies.values())
    assert found.quarantined == {}


def test_without_labels_and_metric_there_is_neither_a_drop_nor_a_section(builds, images, settings):
    for path in sorted(images.rglob("*.png")):
        path.rename(images / f"{path.parent.name}{path.name}")
    for name in COLOURS:
        (images / name).rmdir()
    model, runnables = builds
    data = evaluation_data(open_source(images), settings, model)
    found = measured(runnables, "fp32", data, settings, RecordingConsole())
    assert (found.drops, found.metric) == ({}, None)
    assert found.evaluations["int8"].predicted.tolist() != found.evaluations["fp32"].predicted.tolist()


def test_progress_counts_images_and_unreadable_ones_are_named_with_the_reason(builds, images, settings):
    (images / "green" / "1.png").write_bytes(b"")
    model, runnables = builds
    console, seen = Console(), []
    data = evaluation_data(open_source(images), settings, model)
    evaluations, quarantined = evaluated(
        runnables, "fp32", data, settings, console, lambda name, outputs, batch: seen.append((name, *batch.names))
    )
    ((description, total, done),) = console.tasks
    assert (description, total) == ("Evaluating", 6)
    assert sum(done) == evaluations["fp32"].images == evaluations["int8"].images == 5
    assert quarantined == {"green/1.png": "empty file (0 bytes)"}
    whole = ["blue/0.png", "blue/1.png", "green/0.png", "red/0.png", "red/1.png"]
    for name in ("fp32", "int8"):
        assert [image for build, *images in seen if build == name for image in images] == whole


def test_the_first_batch_is_that_of_the_evaluated_images(builds, images, settings):
    model, _ = builds
    data = evaluation_data(open_source(images), settings, model, np.array([5, 1, 0, 2, 3]))
    batch = first_batch(data, settings)
    assert batch.names == ("red/1.png", "blue/1.png", "blue/0.png", "green/0.png")
    assert batch.inputs["x"][:, :, 0, 0].tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0]]
