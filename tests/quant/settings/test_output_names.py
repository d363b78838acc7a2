import pytest

from quant.settings.output_names import WRITTEN, build_name, description_name, names_of_builds


@pytest.mark.parametrize(
    ("precision", "suffix", "name"),
    [("int8", ".onnx", "model.int8.onnx"), ("fp16", ".engine", "model.fp16.engine")],
)
def test_a_build_is_named_by_its_precision_and_its_kind(precision, suffix, name):
    assert build_name(precision, suffix) == name


def test_the_description_of_an_engine_lies_beside_it():
    assert description_name("model.fp16.engine") == "model.fp16.engine.json"


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_reduced_precision_may_lie_there_as_a_model_or_as_an_engine(precision):
    models = {f"model.{precision}.onnx", f"model.{precision}.onnx.data"}
    names = models | {f"model.{precision}.engine", f"model.{precision}.engine.json"}
    assert set(names_of_builds(precision)) == names


def test_fp32_is_never_written_as_a_model():
    """On ONNX Runtime that is the user's own file."""
    assert set(names_of_builds("fp32")) == {"model.fp32.engine", "model.fp32.engine.json"}
    assert "model.fp32.onnx" not in WRITTEN


def test_all_that_a_run_writes_beside_its_cache_is_listed_once():
    reports = {"report.json", "report.md", "report.html", "timing.cache"}
    engines = {f"model.{name}.engine{end}" for name in ("fp32", "fp16", "int8") for end in ("", ".json")}
    models = {f"model.{name}.onnx{end}" for name in ("fp16", "int8") for end in ("", ".data")}
    assert len(set(WRITTEN)) == len(WRITTEN)
    recovered = {"recovered.onnx", "recovered.cache", "recovered.json", "recovered.h5", "precision.toml"}
    assert set(WRITTEN) == reports | engines | models | recovered
