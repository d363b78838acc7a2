"""Builds that load and do not run, and files out of models of old IRs."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from calib.algorithms import MinMax
from calib.caches.cache import cache_from_amax, text_from_cache
from quant.backend import Build
from quant.errors import ModelError
from quant.jobs.cache_convert import convert_cache_file, read_cache_file
from quant.jobs.overlap.run_builds import tried
from quant.onnx_graph.model import load_model
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.progress import RecordingConsole
from tests.int8_oracle import amax_of, int8_of, run_exactly

n = helper.make_node


@pytest.fixture
def sessions(graph_of):
    """A session that runs on a batch of 4, and one that loads and does not run."""
    good = graph_of([n("Relu", ["x"], ["y"])], {"x": ["N", 3]}, {"y": ["N", 3]})
    bad = graph_of([n("Reshape", ["x", "to"], ["y"])], {"x": ["N", 3]}, {"y": [7]}, {"to": np.array([7])})
    return OnnxRuntimeSession(good), OnnxRuntimeSession(bad)


def test_a_build_whose_deployed_form_does_not_run_is_kept_without_it(sessions, batch_of, random):
    good, bad = sessions
    console = RecordingConsole()
    build = tried(Build("int8", good, b"", ".onnx", 0, deployed=bad), batch_of(x=random(4, 3)), console)
    assert (build.runnable, build.deployed) == (good, None)
    (warning,) = console.warnings
    assert warning.startswith("int8: as ONNX Runtime deploys it, it does not run (")
    assert "session.disable_quant_qdq = 1" in warning


def test_a_build_that_does_not_run_is_an_error_before_anything_is_measured(sessions, batch_of, random):
    good, bad = sessions
    with pytest.raises(ModelError, match="ONNX Runtime cannot run it"):
        tried(Build("int8", bad, b"", ".onnx", 0, deployed=good), batch_of(x=random(4, 3)), RecordingConsole())


def test_a_build_that_runs_in_both_forms_is_the_same_build(sessions, batch_of, random):
    good, _ = sessions
    console = RecordingConsole()
    build = Build("int8", good, b"", ".onnx", 0, deployed=good)
    assert tried(build, batch_of(x=random(4, 3)), console) is build
    assert console.warnings == []


@pytest.mark.parametrize("as_inputs", [True, False])
def test_a_cache_goes_into_a_model_of_ir_3_and_comes_back(tmp_path, graph_of, random, as_inputs):
    nodes = [
        n("Conv", ["x", "w", "b"], ["c"]),
        n("Relu", ["c"], ["r"]),
        n("Upsample", ["r", "s"], ["u"], mode="nearest"),
        n("Conv", ["u", "v"], ["y"]),
    ]
    constants = {"w": random(4, 3, 3, 3), "b": random(4, seed=1), "v": random(2, 4, 1, 1, seed=2)}
    constants |= {"s": np.array([1, 1, 2, 2], np.float32)}
    proto = graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 2, 12, 12]}, constants, opset=9)
    proto.ir_version = 3
    if as_inputs:
        proto.graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in proto.graph.initializer
        )
    model, cache = tmp_path / "model.onnx", tmp_path / "calibration.cache"
    onnx.save(proto, model)
    inputs = {"x": random(2, 3, 8, 8, seed=3)}
    read = load_model(model).proto
    cache.write_text(text_from_cache(cache_from_amax(amax_of(read, inputs), MinMax())))
    written: Path = tmp_path / "written.onnx"
    convert_cache_file(cache, written, model=model)
    onnx.checker.check_model(str(written), full_check=True)
    again = load_model(written).proto
    np.testing.assert_array_equal(run_exactly(again, inputs)["y"], run_exactly(int8_of(read, inputs), inputs)["y"])
    assert read_cache_file(written).cache.scales == read_cache_file(cache).cache.scales
    assert set(read_cache_file(cache).cache.scales) == {"x", "u"}
