"""A detector that leaves height and width open, as most exports do: the run builds it for the size of the data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from calib.calibrator import MinMaxCalibrator
from quant import collect_statistics
from quant.settings.batch_range import BatchRange, SideRange
from quant.tensorrt.backend import TensorRTBackend
from quant.tensorrt.building.builder import engine_from_onnx
from quant.tensorrt.engines.engine import Engine
from tests import detector_project

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[3]
RUN = [
    sys.executable,
    "-c",
    "from calib.cli import main; main()",
    "run",
    "--backend",
    "tensorrt",
    "--builder-level",
    "0",
]


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    project = tmp_path_factory.mktemp("squares") / "project"
    detector_project.write_project(project)
    return project


@pytest.mark.parametrize("options", [[], ["--explicit"]])
def test_a_run_takes_the_size_from_the_metadata(squares, options):
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)
    done = subprocess.run(
        [*RUN, *options, "--out", f"out{len(options)}"],
        cwd=squares,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode in (0, 3), done.stderr  # whether INT8 keeps within the limit is not what is asked here
    assert "leaves sizes of its inputs open; engines are for those of the data, 'images' [3, 64, 64]" in done.stderr
    report = json.loads((squares / f"out{len(options)}" / "report.json").read_text())
    assert [build["precision"] for build in report["builds"]] == ["fp32", "fp16", "int8"]
    described = json.loads((squares / f"out{len(options)}" / "model.fp32.engine.json").read_text())
    assert json.loads(described["identity"]["options"])["sizes"] == {"images": [3, 64, 64]}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engines_give_what_the_model_gives_at_that_size(graph_of, saved, random, run_onnx, batch_of, fast, precision):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Shape", ["c"], ["front"], end=2),
        helper.make_node("Shape", ["c"], ["sides"], start=2),
        helper.make_node("Add", ["sides", "sides"], ["doubled"]),
        helper.make_node("Concat", ["front", "doubled"], ["sizes"], axis=0),
        helper.make_node("Resize", ["c", "", "", "sizes"], ["r"], mode="nearest"),
        helper.make_node("Relu", ["r"], ["y"]),
    ]
    proto = graph_of(nodes, {"x": ["N", 3, "h", "w"]}, {"y": ["N", 16, "H", "W"]}, {"w": random(16, 3, 3, 3) / 5})
    model = saved(proto)
    images = random(4, 3, 24, 40, seed=1)
    calibrator = MinMaxCalibrator([batch_of(x=images)])
    collect_statistics(model, calibrator)
    (expected,) = run_onnx(proto, x=images)
    with TensorRTBackend(4, fast, shapes=lambda _: {"x": (3, 24, 40)}) as backend:
        (found,) = backend.build(model, precision, cache=calibrator.compute_cache()).runnable.run({"x": images})
    assert found.shape == expected.shape == (4, 16, 48, 80)
    assert np.abs(found - expected).max() <= 0.03 * np.abs(expected).max()


def test_an_engine_for_ranges_of_height_and_width_runs_at_the_largest(graph_of, random, run_onnx, fast):
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["y"])]
    shape = ["N", 3, "H", "W"]
    proto = graph_of(nodes, {"x": shape}, {"y": ["N", 4, "H", "W"]}, {"w": random(4, 3, 3, 3)})
    size = BatchRange(1, 2, 4, (SideRange(8, 16, 32), SideRange(8, 16, 24)))
    with Engine(engine_from_onnx(proto, "fp32", size, fast).data) as engine:
        assert [tensor.shape for tensor in engine.tensors] == [(4, 3, 32, 24), (4, 4, 32, 24)]
        x = random(5, 3, 32, 24)
        (found,) = engine.run({"x": x})
    np.testing.assert_allclose(found, run_onnx(proto, x=x)[0], atol=2e-2, rtol=1e-2)  # TF32 is allowed
