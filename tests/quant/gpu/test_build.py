"""`calib build` on a GPU: the engine that a run would build, without images, and never run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from calib.caches.cache import text_from_cache
from quant.jobs.engines.build import build_engines
from quant.qdq.writer import qdq_model_from_amax
from quant.settings.build_settings import BuildSettings
from quant.tensorrt.bindings import load_tensorrt
from quant.tensorrt.engines.engine_model import load_engine

pytestmark = pytest.mark.gpu


@pytest.fixture
def project(demo_master, digit_cache, tmp_path):
    """The embedded sample with a cache."""
    folder = shutil.copytree(demo_master, tmp_path / "digits")
    (folder / "digits.cache").write_text(text_from_cache(digit_cache))
    return folder


@pytest.fixture
def settings(project):
    return BuildSettings(
        model=project / "model.onnx",
        cache=project / "digits.cache",
        out=project / "out",
        batch_size=32,
        builder_level=0,
    )


def predictions(path, digit_images):
    model = load_engine(path)
    try:
        return model.engine.run(digit_images)[0].argmax(1)
    finally:
        model.close()


@pytest.mark.parametrize("explicit", [False, True])
def test_an_engine_from_a_cache_predicts_what_the_model_predicts(
    settings, gpu, digits, digit_images, run_onnx, explicit
):
    (built,) = build_engines(replace(settings, explicit=explicit)).files
    assert built.path == settings.out / "model.int8.engine"
    assert (built.compute_capability, built.measured) == (gpu.compute_capability, False)
    described = json.loads(Path(f"{built.path}.json").read_text())
    assert described["measured"] is False
    assert described["identity"]["tensorrt"] == load_tensorrt().version
    expected = run_onnx(digits.proto, **digit_images)[0].argmax(1)
    assert (predictions(built.path, digit_images) == expected).mean() >= 0.97


def test_an_engine_from_a_model_with_pairs_predicts_it_too(
    settings, digits, digit_cache, digit_images, run_onnx, saved
):
    pairs = saved(qdq_model_from_amax(digits.proto, digit_cache.amax), "pairs.onnx")
    (built,) = build_engines(replace(settings, model=pairs.path, cache=None)).files
    assert built.precision == "int8"
    expected = run_onnx(digits.proto, **digit_images)[0].argmax(1)
    assert (predictions(built.path, digit_images) == expected).mean() >= 0.97
