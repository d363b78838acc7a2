"""Products that stay float on a GPU: in implicit and explicit builds, in detectors, and where recovery leaves them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from calib.calibrator import MinMaxCalibrator
from quant import RunSettings, collect_statistics, run
from quant.errors import BuildError
from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.builder import engine_from_onnx

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[3]
KEPT = frozenset(("block1/conv1", "block1/conv2"))


def of(details, node):
    """What the layers that a node became compute in."""
    layers = details["graph"]["layers"]
    return {layer["precision"] for layer in layers if node in layer["nodes"] and not layer["copies"]}


@pytest.fixture
def wide(graph_of, saved, random, batch_of):
    """Four convolutions of 256 channels, whose INT8 kernels are far quicker than those in float; and their cache."""
    nodes, weights = [], {}
    for i in range(4):
        weights[f"w{i}"] = random(256, 256, 3, 3, seed=i) / 50
        nodes += [
            helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"c{i}"], name=f"conv{i}", pads=[1] * 4),
            helper.make_node("Relu", [f"c{i}"], [f"x{i + 1}"], name=f"relu{i}"),
        ]
    model = saved(graph_of(nodes, {"x0": ["N", 256, 28, 28]}, {"x4": ["N", 256, 28, 28]}, weights))
    calibrator = MinMaxCalibrator([batch_of(x0=random(32, 256, 28, 28))])
    collect_statistics(model, calibrator)
    return model, calibrator.compute_cache()


@pytest.mark.usefixtures("alone")  # the builder times kernels
@pytest.mark.parametrize("explicit", [False, True])
def test_products_stay_float_and_the_others_do_not(backend, wide, explicit):
    model, cache = wide
    with backend(explicit=explicit, strict_int8=True) as made:
        details = made.build(model, "int8", cache, frozenset(("conv1",))).details
    assert of(details, "conv1") <= {"fp16", "fp32"}, details["graph"]["layers"]
    assert of(details, "conv1")
    assert of(details, "conv3") == {"int8"}, details["graph"]["layers"]


def test_a_product_in_float_reads_what_was_never_rounded(backend, digits, digit_cache, digit_images, run_onnx):
    """With all products in float, the implicit build gives FP32's outputs, but for TF32."""
    from quant.qdq.operators import node_key
    from quant.qdq.placement import is_product
    from quant.qdq.preparation import prepared_for_quantization

    everything = frozenset(node_key(n) for n in prepared_for_quantization(digits.proto).nodes if is_product(n))
    expected = run_onnx(digits.proto, **digit_images)[0]
    with backend(batch=200, strict_int8=True) as made:
        whole = made.build(digits, "int8", digit_cache).engine.run(digit_images)[0]
        kept = made.build(digits, "int8", digit_cache, everything).engine.run(digit_images)[0]
    error, rounded = (float(np.square(found - expected).mean()) for found in (kept, whole))
    assert error < rounded / 30


def test_a_product_without_a_layer_of_its_own_makes_the_build_explicit(backend, digits, digit_cache, fast):
    with pytest.raises(BuildError, match="'no/such/product' has no layer of its own"):
        engine_from_onnx(
            digits.proto, "int8", BatchRange(8, 8, 8), fast, cache=digit_cache, float_nodes=["no/such/product"]
        )
    with backend() as made:
        build = made.build(digits, "int8", digit_cache, KEPT | {"no/such/product"})
    assert build.details["explicit"]
    assert any("it is explicit" in note for note in backend.notes)


@pytest.fixture
def loud_digits(demo_master, tmp_path):
    """The sample with two of 16 channels of its first residual stream 256 times louder; its function is the same."""
    folder = shutil.copytree(demo_master, tmp_path / "loud")
    model = onnx.load(folder / "model.onnx")
    readers = ("block1/conv1.weight", "block2/conv1.weight", "block2/conv_shortcut.weight")
    makers = ("stem/bn.weight", "stem/bn.bias", "block1/bn2.weight", "block1/bn2.bias")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name in makers:
            values[:2] *= 256
        if tensor.name in readers:
            values[:, :2] /= 256
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, folder / "model.onnx")
    return folder


def settings_of(folder, **changes):
    return RunSettings(
        model=folder / "model.onnx",
        data=folder / "imgs",
        preprocess=str(folder / "preprocess.toml"),
        out=folder / "out",
        backend="tensorrt",
        builder_level=0,
        strict_int8=True,
        algo="minmax",
        **changes,
    )


def test_a_run_on_the_gpu_recovers_what_loud_channels_cost(loud_digits):
    lost = run(settings_of(loud_digits, recover="off"))
    found = run(settings_of(loud_digits))
    before, after = (next(row for row in d["builds"] if row["precision"] == "int8") for d in (lost, found))
    assert before["drop_top1"] > 1 >= after["drop_top1"]
    assert found["recovery"]["int8_share"] == 100
    assert found["recovery"]["steps"][0]["step"] == "equalize"
    assert found["recovery"]["steps"][0]["kept"]
    assert (loud_digits / "out" / "model.int8.engine").is_file()


def test_what_a_search_leaves_in_float_is_timed_and_is_in_float(loud_digits):
    found = run(settings_of(loud_digits, recover="float"))
    left = found["recovery"]["float_nodes"]
    assert left
    int8 = next(row for row in found["builds"] if row["precision"] == "int8")
    for node in left:
        assert of(int8["tensorrt"], node) <= {"fp16", "fp32"}, int8["tensorrt"]["graph"]["layers"]
    assert int8["drop_top1"] <= 1
    text = (loud_digits / "out" / "precision.toml").read_text()
    assert all(node in text for node in left)


def test_the_detection_sample_on_a_gpu_with_its_head_in_float(tmp_path):
    command = [sys.executable, "-c", "from calib.cli import main; main()"]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep),
    }
    made = subprocess.run(
        [*command, "demo", "--task", "detect", "d"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert made.returncode == 0, made.stderr
    options = ("run", "--data", "imgs/", "--backend", "tensorrt", "--builder-level", "0", "--quiet")
    done = subprocess.run(
        [*command, *options], cwd=tmp_path / "d", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "d" / "calib-out" / "report.json").read_text())
    assert found["failed_builds"] == [], done.stderr
    row = next(row for row in found["metric"]["builds"] if row["precision"] == "int8")
    assert row["drop"] <= 1
    head = found["detection"]["head_kept"]
    assert head["kept"] == "float"
    int8 = next(row for row in found["builds"] if row["precision"] == "int8")
    assert any(of(int8["tensorrt"], node) for node in head["nodes"])
    for node in head["nodes"]:
        assert of(int8["tensorrt"], node) <= {"fp16", "fp32"}, int8["tensorrt"]["graph"]["layers"]
    print({"head": head, "latency": {row["precision"]: row["latency_ms"] for row in found["builds"]}})  # with -s
