"""The sizes on which engines are built where a model leaves them open: those of the data that the run feeds."""

from pathlib import Path

import onnx
import pytest

from quant import run
from quant.jobs import backend_choice
from quant.jobs.compare import compare_files
from quant.onnxruntime.backend import OnnxRuntimeBackend
from quant.settings.calib_toml import settings_from_options
from tests.colour_project import write_model
from tests.detector_project import write_project


@pytest.fixture
def asked(monkeypatch):
    """What TensorRT's back end would be told of each model's inputs: a run in which ONNX Runtime stands in for it."""
    shapes = []

    class Builds(OnnxRuntimeBackend):
        def __init__(self, given):
            super().__init__()
            self._given = given

        def build(self, model, precision, *rest):
            shapes.append(self._given(model))
            return super().build(model, precision, *rest)

        def load(self, model, precision):
            shapes.append(self._given(model))
            return super().load(model, precision)

    monkeypatch.setattr(backend_choice, "_tensorrt", lambda settings, console, given, *, reuse=True: Builds(given))
    return shapes


def test_the_models_metadata_states_the_size(asked, tmp_path, monkeypatch):
    write_project(tmp_path / "p", images=4)
    monkeypatch.chdir(tmp_path / "p")
    run(settings_from_options({"backend": "tensorrt", "precision": "fp32"}))
    assert asked == [{"images": (3, 64, 64)}]


def test_input_size_states_it_and_a_comparison_renames_the_inputs(asked, colours, monkeypatch):
    write_model(colours / "model.onnx", size=None)
    other = onnx.load(colours / "model.onnx")
    other.graph.input[0].name = other.graph.node[0].input[0] = "pixels"
    onnx.save(other, colours / "other.onnx")
    monkeypatch.chdir(colours)
    options = {"backend": "tensorrt", "input_size": "8x12"}
    compare_files(Path("model.onnx"), Path("other.onnx"), {"data": "imgs", "preprocess": "unit", **options})
    assert asked == [{"input": (3, 8, 12)}, {"pixels": (3, 8, 12)}]
