import importlib.util
from pathlib import Path

import pytest

from quant.collectors.onnxruntime_collector import OnnxRuntimeCollector
from quant.errors import QuantError, SettingsError
from quant.jobs.backend_choice import backend_by_name, backend_from_settings, collector_from_settings
from quant.onnxruntime.backend import OnnxRuntimeBackend
from quant.settings.run_settings import RunSettings
from tests.outcome import Notes

without_tensorrt = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed here"
)


def test_onnx_runtime_is_taken_when_it_is_asked_for():
    console = Notes()
    backend = backend_from_settings(RunSettings(backend="onnxruntime"), console)
    assert backend.name == "onnxruntime"
    assert console.notes == [f"back end: ONNX Runtime {backend.version} on the CPU ({backend.device})"]


@without_tensorrt
def test_auto_takes_onnx_runtime_and_says_why_not_tensorrt():
    console = Notes()
    assert backend_from_settings(RunSettings(), console).name == "onnxruntime"
    assert "; not TensorRT: TensorRT is not installed" in console.notes[0]


@without_tensorrt
@pytest.mark.parametrize("options", [{"backend": "tensorrt"}, {"calibrator": "tensorrt"}])
def test_tensorrt_that_was_asked_for_and_is_not_there_stops_the_run(options):
    with pytest.raises(QuantError, match="TensorRT is not installed; pip install"):
        backend_from_settings(RunSettings(out=Path("out"), **options), Notes())


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_a_comparison_takes_onnx_runtime_unless_tensorrt_is_named(backend):
    console = Notes()
    found = backend_by_name(RunSettings(backend=backend), console)
    assert isinstance(found, OnnxRuntimeBackend)
    assert console.notes == [f"back end: ONNX Runtime {found.version} on the CPU ({found.device})"]
    assert console.warnings == []


@without_tensorrt
def test_a_comparison_on_tensorrt_that_is_not_there_stops():
    with pytest.raises(QuantError, match="TensorRT is not installed; pip install"):
        backend_by_name(RunSettings(backend="tensorrt"), Notes())


@pytest.mark.parametrize("options", [{"collector": "cpu"}, {"backend": "onnxruntime"}, {"match_tensorrt": True}])
def test_statistics_are_made_on_the_cpu_where_a_gpu_is_not_asked_for(options):
    assert isinstance(collector_from_settings(RunSettings(**options), Notes()), OnnxRuntimeCollector)


@without_tensorrt
def test_statistics_are_made_on_the_cpu_where_there_is_no_gpu():
    assert isinstance(collector_from_settings(RunSettings(), Notes()), OnnxRuntimeCollector)
    with pytest.raises(QuantError, match="TensorRT is not installed; pip install"):
        collector_from_settings(RunSettings(collector="gpu"), Notes())


@pytest.mark.parametrize("options", [{"match_tensorrt": True}, {"calibrator": "tensorrt"}])
def test_settings_that_the_gpus_counts_do_not_serve_are_refused(options):
    with pytest.raises(SettingsError, match="collector: the GPU's counts do not serve"):
        RunSettings(collector="gpu", **options)
