"""Measuring builds beside their baseline: ONNX Runtime, images on disk, answers that can be told by hand."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from datasets import open_source
from quant.backend import Build
from quant.calibration.run_data import evaluation_data
from quant.errors import QuantError
from quant.evaluation.metric import recorder_from_settings
from quant.jobs.measurement import evaluated, first_batch, measured, read_outputs, say_of_labels
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
    sessions = {"int8": OnnxRuntimeSession(bad.proto), "fp32": OnnxRuntimeSession(good.proto)}
    return good, {name: Build(name, session, None, ".onnx", 0) for name, session in sessions.items()}


@pytest.fixture
def reader_of(settings):
    """How the outputs of a model are read on some data, and what was said of it."""

    def read(model, data, **changed):
        console, asked = RecordingConsole(), replace(settings, **changed)
        session = OnnxRuntimeSession(model.proto)
        reader, problem = read_outputs(model, session, first_batch(data, asked), data, console)
        say_of_labels(problem, asked, console)
        return reader, console.warnings

    return read


def test_builds_are_held_against_their_baseline_on_the_same_images(builds, images, settings, reader_of):
    model, built = builds
    data = evaluation_data(open_source(images), settings, model)
    recorder = recorder_from_settings(settings, model, RecordingConsole())
    reader, _ = reader_of(model, data)
    found = measured(built, "fp32", data, settings, RecordingConsole(), reader, recorder)
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


def test_without_labels_and_metric_there_is_neither_a_drop_nor_a_section(builds, images, settings, reader_of):
    for path in sorted(images.rglob("*.png")):
        path.rename(images / f"{path.parent.name}{path.name}")
    for name in COLOURS:
        (images / name).rmdir()
    model, built = builds
    data = evaluation_data(open_source(images), settings, model)
    reader, _ = reader_of(model, data)
    found = measured(built, "fp32", data, settings, RecordingConsole(), reader)
    assert (found.drops, found.metric) == ({}, None)
    assert found.evaluations["int8"].predicted.tolist() != found.evaluations["fp32"].predicted.tolist()


def test_progress_counts_images_and_unreadable_ones_are_named_with_the_reason(builds, images, settings, reader_of):
    (images / "green" / "1.png").write_bytes(b"")
    model, built = builds
    console, seen = Console(), []
    data = evaluation_data(open_source(images), settings, model)
    reader, _ = reader_of(model, data)
    evaluations, quarantined = evaluated(
        built, "fp32", data, settings, console, reader, lambda name, _, batch, __: seen.append((name, *batch.names))
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


class Counted:
    """Runs a session, its outputs times a factor, and counts the runs."""

    def __init__(self, session, factor):
        self.session, self.factor, self.runs = session, factor, 0

    def run(self, inputs):
        self.runs += 1
        return [self.factor * output for output in self.session.run(inputs)]


def test_accuracy_is_of_the_build_as_written_and_latency_of_the_build_as_deployed(builds, images, settings, reader_of):
    model, built = builds
    written, deployed = (Counted(built["fp32"].runnable, factor) for factor in (1, 2))
    built["int8"] = replace(built["int8"], runnable=written, deployed=deployed)
    data = evaluation_data(open_source(images), settings, model)
    reader, _ = reader_of(model, data)
    found = measured(built, "fp32", data, settings, RecordingConsole(), reader)
    evaluation = found.evaluations["int8"]
    assert evaluation.sqnr_db == evaluation.written.sqnr_db == np.inf
    assert evaluation.deployed.sqnr_db == pytest.approx(0, abs=1e-6)  # twice the logits: noise as large as the signal
    assert evaluation.deployed.images == 6
    assert written.runs == 2  # batches of 4 and of 2 images; it is not timed
    assert deployed.runs > 2 + found.latencies["int8"].runs


@pytest.fixture
def features_of(saved, graph_of):
    """A model that gives the mean red, green and blue of an image, repeated up to some features."""

    def make(count, shape=None):
        weight = (
            np.tile(np.eye(3), (-(-count // 3), 1))[:count].reshape(count, 3, 1, 1)
            * (1 + np.arange(count) / 50)[:, None, None, None]
        )
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[0] * 4),
            helper.make_node("GlobalAveragePool", ["c"], ["p"]),
            helper.make_node("Flatten", ["p"], ["features"]),
        ]
        constants = {"w": weight.astype(np.float32)}
        return saved(graph_of(nodes, {"x": ["N", 3, 4, 4]}, {"features": shape or ["N", count]}, constants))

    return make


def test_labels_of_folders_that_fit_no_output_are_left_out_with_a_warning(features_of, images, settings, reader_of):
    model = features_of(16)
    data = evaluation_data(open_source(images), settings, model)
    reader, warnings = reader_of(model, data, metric=None)
    assert reader.scores is None
    assert reader.compared == (0,)
    assert warnings == [
        f"{images}: expected labels of the 16 classes that the model has, found 3 (blue, green, red); give all class "
        "names in the model's order with --classes, or say what the model is for with --task; the labels are not used"
    ]


@pytest.mark.parametrize("asked", ["labels", "classes"])
def test_labels_that_were_asked_for_and_fit_no_output_are_an_error(features_of, images, settings, reader_of, asked):
    model = features_of(16)
    data = evaluation_data(open_source(images), settings, model)
    with pytest.raises(QuantError, match="expected labels of the 16 classes"):
        reader_of(model, data, metric=None, **{asked: images})
    reader, warnings = reader_of(model, data, **{asked: images})
    assert (reader.scores, warnings) == (None, [])  # a metric makes of labels what it likes


@pytest.mark.parametrize("axis", ["classes", None])
def test_an_open_class_axis_has_as_many_classes_as_the_model_gives(features_of, images, settings, reader_of, axis):
    model = features_of(3, ["N", axis])
    data = evaluation_data(open_source(images), settings, model)
    reader, warnings = reader_of(model, data, metric=None)
    assert (reader.scores.kind, reader.scores.classes, warnings) == ("logits", 3, [])
    other = features_of(5, ["N", axis])
    reader, warnings = reader_of(other, data, metric=None)
    assert reader.scores is None
    assert "found 3 (blue, green, red)" in warnings[0]


def test_what_is_not_compared_is_named(saved, graph_of, images, settings, reader_of):
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["brightness"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMax", ["x"], ["peak"], keepdims=0),
        helper.make_node("NonZero", ["x"], ["places"]),
    ]
    shapes = {"brightness": ["N", 3], "peak": [], "places": [4, "M"]}
    model = saved(graph_of(nodes, {"x": ["N", 3, 4, 4]}, shapes, kinds={"places": TensorProto.INT64}))
    data = evaluation_data(open_source(images), settings, model)
    reader, warnings = reader_of(model, data, metric=None)
    assert reader.compared == (0,)
    assert (reader.scores.output, reader.scores.classes) == (0, 3)
    assert [text.split(":")[0] for text in warnings] == [
        "output 'peak' is not compared",
        "output 'places' is not compared",
    ]


def test_a_model_with_nothing_to_compare_says_so_and_names_the_metric(saved, graph_of, images, settings, reader_of):
    nodes = [helper.make_node("ReduceMax", ["x"], ["peak"], keepdims=0)]
    model = saved(graph_of(nodes, {"x": ["N", 3, 4, 4]}, {"peak": []}))
    data = evaluation_data(open_source(images), settings, model)
    _, warnings = reader_of(model, data)
    assert (
        warnings[-1] == f"{model.path}: none of its outputs can be compared; only a metric (--metric) can tell a drop"
    )
