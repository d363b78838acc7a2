"""A calibration by the back end itself: kept with its provenance, used again, and never taken for the toolkit's."""

import dataclasses

import pytest

from quant import collect_statistics
from quant.calibration.obtain import obtain_calibration
from quant.calibration.run_data import open_data
from quant.collectors.onnxruntime_collector import OnnxRuntimeCollector
from quant.onnx_graph.model import load_model
from quant.onnxruntime.backend import OnnxRuntimeBackend
from quant.progress import RecordingConsole
from quant.settings.run_settings import RunSettings


class Native(OnnxRuntimeBackend):
    """ONNX Runtime with the toolkit's search in the place of TensorRT's own calibration."""

    def __init__(self):
        super().__init__()
        self.calibrated = 0

    def calibrate(self, model, calibrator, advance):
        self.calibrated += 1
        collect_statistics(model, calibrator, advance)
        return calibrator.compute_cache()


@pytest.fixture
def obtained(colours):
    """Calibrates by a back end; gives the result, the warnings and how often the back end calibrated by itself."""
    settings = RunSettings(
        model=colours / "model.onnx",
        data=colours / "imgs",
        preprocess="unit",
        out=colours / "out",
        algo="minmax",
        num_images=32,
        calibrator="tensorrt",
    )

    def obtain(**changes):
        asked, console, backend = dataclasses.replace(settings, **changes), RecordingConsole(), Native()
        model = load_model(asked.model)
        result = obtain_calibration(
            asked, model, open_data(asked, model, console), backend, OnnxRuntimeCollector(), console
        )
        return result, console.warnings, backend.calibrated

    return obtain


def test_it_is_used_again_without_an_image(obtained):
    first, _, calibrated = obtained()
    assert (first.how, first.images, calibrated) == ("calibrated", 32, 1)
    again, warnings, calibrated = obtained()
    assert (again.how, again.images, calibrated, warnings) == ("reused", 32, 0, [])
    assert again.cache == first.cache


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"algo": "entropy"}, "another algorithm (minmax, now entropy"),
        ({"batch_size": 16}, "another batch size (64, now 16)"),
    ],
)
def test_it_cannot_be_computed_anew_without_images(obtained, change, told):
    obtained()
    result, warnings, calibrated = obtained(**change)
    assert (result.how, calibrated) == ("calibrated", 1)
    assert told in warnings[0]


def test_it_is_not_taken_for_the_toolkit_s(obtained):
    obtained()
    result, warnings, calibrated = obtained(calibrator="toolkit")
    assert (result.how, calibrated) == ("calibrated", 0)
    assert "was made from TensorRT's own calibration; recalibrating" in warnings[0]
    result, warnings, calibrated = obtained()
    assert (result.how, calibrated) == ("calibrated", 1)
    assert "was made from the toolkit's statistics; recalibrating" in warnings[0]
