import pytest

from quant.calibration.obtain import obtain_calibration
from quant.calibration.run_data import open_data
from quant.collectors.onnxruntime_collector import OnnxRuntimeCollector
from quant.onnx_graph.model import load_model
from quant.onnxruntime.backend import OnnxRuntimeBackend
from quant.settings.calib_toml import settings_from_options
from tests.outcome import Notes


@pytest.fixture
def obtain(monkeypatch):
    """Obtains the scales of a project as a run in its folder does, and builds and reports nothing.

    Gives the result and what was said.
    """

    def call(project, **options):
        console = Notes()
        with monkeypatch.context() as patch:
            patch.chdir(project)
            settings = settings_from_options(options)
            model = load_model(settings.model)
            data = open_data(settings, model, console)
            result = obtain_calibration(settings, model, data, OnnxRuntimeBackend(), OnnxRuntimeCollector(), console)
        return result, console

    return call


@pytest.fixture
def ours(finished):
    """The cache that the run of the finished project wrote."""
    return finished / "calib-out" / "calibration.cache"
