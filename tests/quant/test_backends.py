import importlib.util
from pathlib import Path

import pytest

from calib.calibrator import MinMaxCalibrator
from quant.backend import OnnxRuntimeBackend
from quant.backends import backend_from_settings
from quant.console import RecordingConsole
from quant.errors import BuildError, QuantError
from quant.settings import RunSettings


class Notes(RecordingConsole):
    def __init__(self):
        super().__init__()
        self.notes = []

    def note(self, line):
        self.notes.append(line)


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


def test_onnx_runtime_has_no_calibration_of_its_own(residual_net, saved):
    with pytest.raises(BuildError, match="use --calibrator toolkit"):
        OnnxRuntimeBackend().calibrate(saved(residual_net), MinMaxCalibrator(), print)


def test_int8_without_scales_is_refused(residual_net, saved):
    with pytest.raises(BuildError, match="int8: expected scales, found none"):
        OnnxRuntimeBackend().build(saved(residual_net), "int8")
