import os
import signal
import threading

import numpy as np
import pytest
from onnx import helper

from calib.calibrator import EntropyCalibrator
from quant import collect_statistics
from quant.cuda.device import DeviceBuffer, OutOfDeviceMemoryError, PinnedBuffer, Stream, memory_info
from quant.errors import BuildError, ModelError
from quant.qdq.writer import qdq_model_from_amax
from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.builder import engine_from_onnx
from quant.tensorrt.engines.engine import Engine
from quant.tensorrt.engines.engine_file import sidecar_path

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def expected(digits, digit_images, run_onnx):
    """Logits of ONNX Runtime."""
    return run_onnx(digits.proto, **digit_images)[0]


@pytest.fixture(scope="module")
def engine(digits, fast):
    """An FP32 engine for batches of 32."""
    with Engine(engine_from_onnx(digits.proto, "fp32", BatchRange(32, 32, 32), fast).data) as loaded:
        yield loaded


def test_data_survives_the_way_through_the_gpu():
    values = np.random.default_rng(0).normal(size=(256, 1024)).astype(np.float32)
    with (
        Stream() as stream,
        PinnedBuffer(values.shape, values.dtype) as there,
        PinnedBuffer(values.shape, values.dtype) as back,
        DeviceBuffer(values.nbytes) as buffer,
    ):
        there.array[:] = values
        stream.copy_to_device(buffer, there)
        stream.copy_to_host(back, buffer)
        stream.synchronize()
        np.testing.assert_array_equal(back.array, values)


def test_more_memory_than_there_is_is_refused_and_the_gpu_goes_on():
    with pytest.raises(OutOfDeviceMemoryError):
        DeviceBuffer(1 << 50)
    assert memory_info()[0] > 0


@pytest.mark.parametrize("images", [1, 31, 32, 33, 200])
def test_any_number_of_images_gives_what_onnx_runtime_gives(engine, digit_images, expected, images):
    (logits,) = engine.run({name: array[:images] for name, array in digit_images.items()})
    np.testing.assert_allclose(logits, expected[:images], atol=2e-2, rtol=1e-2)  # TF32 is allowed


@pytest.mark.parametrize("images", [1, 2, 9, 16, 40])
def test_dynamic_batch_gives_the_same(digits, digit_images, expected, fast, images):
    with Engine(engine_from_onnx(digits.proto, "fp16", BatchRange(2, 8, 16), fast).data) as engine:
        assert (engine.smallest, engine.largest) == (2, 16)
        (logits,) = engine.run({name: array[:images] for name, array in digit_images.items()})
    np.testing.assert_allclose(logits, expected[:images], atol=5e-2, rtol=2e-2)


def test_input_of_another_name_or_shape_is_named(engine):
    with pytest.raises(ModelError, match="expected input 'input', found pixels"):
        engine.run({"pixels": np.zeros((1, 1, 8, 8), np.float32)})
    with pytest.raises(ModelError, match=r"expected shape \[N, 1, 8, 8\], found \[1, 3, 8, 8\]"):
        engine.run({"input": np.zeros((1, 3, 8, 8), np.float32)})


def test_several_inputs_and_outputs_keep_their_names_and_order(graph_of, random, fast):
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    shape = ["N", 4]
    proto = graph_of(nodes, {"a": shape, "b": shape}, {"difference": shape, "sum": shape})
    a, b = random(5, 4, seed=1), random(5, 4, seed=2)
    data = engine_from_onnx(proto, "fp32", BatchRange(4, 4, 4), fast).data
    with Engine(data, outputs=["difference", "sum"]) as engine:
        difference, total = engine.run({"b": b, "a": a})
    np.testing.assert_allclose(difference, a - b, atol=1e-5)
    np.testing.assert_allclose(total, a + b, atol=1e-5)


def test_latency_is_a_median_of_at_least_100_runs_with_its_99th_percentile(engine, digit_images):
    latency = engine.latency(digit_images)
    assert latency.runs >= 100
    assert latency.batch == 32
    assert 0 < latency.milliseconds <= latency.p99
    assert latency.images_per_second == pytest.approx(32000 / latency.milliseconds)


def test_node_that_tensorrt_cannot_read_is_named_with_tensorrts_words(graph_of, fast):
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Det", ["r"], ["y"], name="determinant")]
    proto = graph_of(nodes, {"x": ["N", 3, 3]}, {"y": ["N"]})
    with pytest.raises(BuildError, match=r"node 'determinant' \(Det\): .+"):
        engine_from_onnx(proto, "fp32", BatchRange(1, 1, 1), fast)


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.5, 1.5])
def test_ctrl_c_is_heard_whatever_tensorrt_is_doing(digits, fast, seconds):
    """It may come while TensorRT loads, parses or writes its log in the main thread, where it would be lost."""
    key = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        key.start()
        for _ in range(20):
            engine_from_onnx(digits.proto, "fp32", BatchRange(32, 32, 32), fast)
    key.join()


def test_engine_of_another_file_or_release_is_not_loaded():
    with pytest.raises(BuildError, match=r"cannot load it: .+"):
        Engine(b"this is no engine" * 100)


@pytest.mark.usefixtures("alone")  # the builder times kernels
def test_precision_of_each_layer_is_reported(digits, digit_cache, backend):
    builds = backend(strict_int8=True)
    graph = builds.build(digits, "int8", cache=digit_cache).details["graph"]
    assert graph["precisions"].get("int8", 0) > 3  # of seven convolutions; which, differs from build to build
    assert graph["onnx_nodes"] == len(digits.proto.graph.node)
    assert graph["engine_layers"] < graph["onnx_nodes"]
    assert any(len(nodes) > 1 for nodes in graph["fused"].values())
    assert set(builds.build(digits, "fp32").details["graph"]["precisions"]) <= {"fp32", "int", "unknown"}


@pytest.mark.parametrize("explicit", [False, True])
def test_int8_engine_predicts_what_the_model_predicts(digits, digit_images, digit_cache, expected, backend, explicit):
    build = backend(explicit=explicit, strict_int8=True).build(digits, "int8", cache=digit_cache)
    (logits,) = build.runnable.run(digit_images)
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.97
    assert build.details["explicit"] is explicit


def test_transformer_with_pairs_on_every_kernel_is_built_where_fp16_is_allowed(
    transformer, saved, batch_of, random, run_onnx, backend
):
    model = saved(transformer)
    calibrator = EntropyCalibrator([batch_of(x=random(32, 16, 64, seed=seed)) for seed in range(8)])
    collect_statistics(model, calibrator)
    x = random(32, 16, 64, seed=99)
    (expected,) = run_onnx(transformer, x=x)
    pairs = qdq_model_from_amax(transformer, calibrator.compute_cache().amax)
    build = backend().load(saved(pairs, "pairs.onnx"), "int8")
    (logits,) = build.runnable.run({"x": x})
    assert np.abs(logits - expected).max() <= 0.1 * np.abs(expected).max()
    chosen = backend(explicit=True).build(model, "int8", cache=calibrator.compute_cache())
    (logits,) = chosen.runnable.run({"x": x})
    assert np.abs(logits - expected).max() <= 0.1 * np.abs(expected).max()
    assert any(line.startswith("explicit: taken: pairs ") for line in backend.notes)


def test_engine_on_disk_is_used_again_until_anything_changes(digits, digit_cache, backend, tmp_path):
    first = backend(engines=tmp_path)
    build = first.build(digits, "int8", cache=digit_cache)
    assert not build.reused
    path = tmp_path / "model.int8.engine"
    path.write_bytes(build.payload)
    sidecar_path(path).write_bytes(build.files[".json"])
    again = backend(engines=tmp_path).build(digits, "int8", cache=digit_cache)
    assert again.reused
    assert again.details["graph"] == build.details["graph"]
    other = backend(16, engines=tmp_path)
    assert not other.build(digits, "int8", cache=digit_cache).reused
    assert "batch size was 32, now 16" in backend.notes[-1]


def test_timing_cache_is_kept_and_read_again(digits, backend, tmp_path):
    file = tmp_path / "timing.cache"
    backend(timing_cache=file, level=1).build(digits, "fp16")
    assert file.stat().st_size > 0
    file.write_bytes(b"of another GPU")
    backend(timing_cache=file, level=1).build(digits, "fp16")  # is replaced, not an error
    assert file.read_bytes() != b"of another GPU"


def test_level_0_times_no_kernel_and_leaves_the_timing_cache_alone(digits, backend, tmp_path):
    file = tmp_path / "timing.cache"
    backend(timing_cache=file).build(digits, "fp16")
    assert not file.exists()


@pytest.mark.usefixtures("memory_returns")
def test_building_running_and_closing_gives_all_memory_back_and_the_next_build_works(
    digits, digit_images, digit_cache, expected, backend
):
    for _ in range(3):
        used = backend()
        (logits,) = used.build(digits, "int8", cache=digit_cache).runnable.run(digit_images)
        used.close()
        assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.97


@pytest.mark.usefixtures("alone")  # it takes nearly all of the GPU's memory
def test_full_gpu_halves_the_batch_and_says_so_then_stops(graph_of, random, backend, saved):
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4), helper.make_node("Relu", ["c"], ["y"])]
    shapes = {"x": ["N", 16, 128, 128]}, {"y": ["N", 16, 128, 128]}
    model = saved(graph_of(nodes, *shapes, {"w": random(16, 16, 3, 3)}))
    free = memory_info()[0]
    with DeviceBuffer(free - (1 << 30)):
        used = backend(1024)  # 1 GiB for inputs alone
        build = used.build(model, "fp32")
        assert used.batch.largest < 1024
        assert "out of GPU memory at batch 1024; trying 512" in " ".join(backend.notes)
        assert build.engine.largest == used.batch.largest
    shapes = {"x": ["N", 16, 2048, 2048]}, {"y": ["N", 16, 2048, 2048]}  # 256 MiB for the input of one image
    large = saved(graph_of(nodes, *shapes, {"w": random(16, 16, 3, 3)}))
    with DeviceBuffer(memory_info()[0] - (96 << 20)), pytest.raises(BuildError, match="out of GPU memory at batch 1:"):
        backend(2).build(large, "fp32")


def test_layers_are_timed_by_name_and_the_latency_is_as_before(digits, digit_images, digit_cache, backend):
    build = backend().build(digits, "int8", cache=digit_cache)
    before = build.engine.latency(digit_images).milliseconds
    seconds = build.engine.layer_seconds(digit_images)
    names = {layer["name"] for layer in build.details["graph"]["layers"]}
    assert set(seconds) <= names
    assert len(seconds) > len(names) / 2  # what takes no time may be left out
    assert all(value >= 0 for value in seconds.values())  # a layer may take less than the profiler can tell
    assert sum(seconds.values()) > 0
    assert 1000 * sum(seconds.values()) < 100 * before  # milliseconds and not seconds
    after = build.engine.latency(digit_images).milliseconds
    assert after < 3 * before  # the profiler is gone
    rows = {row["name"]: row for row in build.details["graph"]["nodes"]}
    convolutions = [rows[node.name] for node in digits.proto.graph.node if node.op_type == "Conv" and node.name in rows]
    assert convolutions
    assert all(row["layers"] for row in convolutions)


def test_an_explicit_build_tells_what_it_tried(digits, digit_cache, backend):
    details = backend(explicit=True).build(digits, "int8", cache=digit_cache).details
    tried = details["explicit_builds"]
    assert 2 <= len(tried) <= 5  # TensorRT's own choice, and at most four placements
    assert tried[0]["pairs"] == "nowhere, by TensorRT's own choice"
    assert sum(row["taken"] for row in tried) == 1
    assert not tried[0]["taken"]
    assert all(row["seconds"] > 0 and (row["error"] or row["milliseconds"] > 0) for row in tried)
