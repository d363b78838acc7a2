"""Engines in `calib compare` and `calib migrate`, and `--backend tensorrt` in compare and sweep."""

import json

import onnx
import pytest

from calib.caches.cache import text_from_cache
from quant.jobs.compare import compare_files
from quant.jobs.migrating.migrate import migrate
from quant.jobs.sweep import sweep
from quant.qdq.writer import qdq_model_from_amax
from quant.settings.run_settings import RunSettings
from quant.tensorrt.bindings import load_tensorrt
from quant.tensorrt.engines.engine_file import sidecar_path

pytestmark = pytest.mark.gpu
QUICK = {"batch_size": 32, "builder_level": 0}


@pytest.fixture
def engine_file(digits, digit_cache, backend, tmp_path):
    """Writes an engine of the sample with its description; gives its path."""

    def write(precision, described=True):
        build = backend(strict_int8=True).build(digits, precision, cache=digit_cache)
        path = tmp_path / f"model.{precision}.engine"
        path.write_bytes(build.payload)
        sidecar_path(path).unlink(missing_ok=True)
        if described:
            sidecar_path(path).write_bytes(build.files[".json"])
        return path

    return write


@pytest.fixture
def compared(demo, tmp_path):
    """Compares two files on the sample's images."""
    options = QUICK | {"data": demo / "imgs", "preprocess": str(demo / "preprocess.toml"), "out": tmp_path / "out"}
    return lambda first, second, **more: compare_files(first, second, options | more)


def test_an_engine_is_held_against_its_model_on_tensorrt(compared, engine_file, demo, tmp_path):
    document = compared(demo / "model.onnx", engine_file("int8"))
    fp32, int8 = document["builds"]
    assert document["backend"]["name"] == "tensorrt"
    assert (fp32["precision"], int8["precision"]) == ("fp32", "int8")
    assert fp32["top1"] > 95
    assert abs(int8["drop_top1"]) <= 2
    assert int8["agreement"] >= 97
    assert fp32["latency_batch"] == int8["latency_batch"] == 32
    assert fp32["latency_runs"] >= 100
    assert document["layers"]["source"] == "engine inspector"
    assert document["verdict"] == "pass"
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == document


def test_two_engines_are_compared(compared, engine_file):
    document = compared(engine_file("fp32"), engine_file("fp16"))
    assert [row["found"] for row in document["compared"]] == ["fp32", "fp16"]
    assert document["builds"][1]["agreement"] >= 99


def test_an_engine_without_a_description_is_run_all_the_same(compared, engine_file, demo):
    document = compared(demo / "model.onnx", engine_file("fp16", described=False))
    assert document["builds"][1]["precision"] == "engine"
    assert document["builds"][1]["agreement"] >= 99


def test_onnx_models_are_compared_on_tensorrt_where_it_is_named(compared, digits, digit_cache, demo, tmp_path):
    int8 = tmp_path / "int8.onnx"
    onnx.save(qdq_model_from_amax(digits.proto, digit_cache.amax), int8)
    document = compared(demo / "model.onnx", int8, backend="tensorrt")
    assert document["backend"]["name"] == "tensorrt"
    assert document["builds"][1]["precision"] == "int8"
    assert abs(document["builds"][1]["drop_top1"]) <= 2
    assert document["layers"]["precisions"].get("int8", 0) >= 6


def test_a_sweep_on_tensorrt_keeps_the_best_engine(demo, tmp_path):
    settings = RunSettings(
        model=demo / "model.onnx", data=demo / "imgs", num_images=128, out=tmp_path / "out", backend="tensorrt",
        preprocess=str(demo / "preprocess.toml"), **QUICK,
    )  # fmt: skip
    document = sweep(settings)
    assert document["backend"]["name"] == "tensorrt"
    assert document["kept"] == "model.int8.engine"
    assert (settings.out / "model.int8.engine").stat().st_size > 0
    assert sidecar_path(settings.out / "model.int8.engine").is_file()
    assert document["again"].startswith("calib run --backend tensorrt --algo")
    assert all(abs(row["drop_top1"]) <= 5 for row in document["rows"])


def test_a_migration_holds_the_new_model_against_the_old_engine(digit_cache, demo, tmp_path):
    (tmp_path / "old.cache").write_text(text_from_cache(digit_cache))
    settings = RunSettings(
        model=demo / "model.onnx", data=demo / "imgs", out=tmp_path / "out", backend="tensorrt",
        preprocess=str(demo / "preprocess.toml"), **QUICK,
    )  # fmt: skip
    document = migrate(tmp_path / "old.cache", settings)
    builds, found = document["builds"], document["migration"]
    if not load_tensorrt().has_calibrators:
        assert found["forecast"]
        return
    assert document["backend"]["name"] == "tensorrt"
    assert not found["forecast"]
    assert abs(found["drop_top1"]) <= 1
    assert not list(settings.out.glob("*.engine"))
    old, new = (row["tensorrt"]["graph"]["nodes"] for row in builds[1:])
    old_int8, new_int8 = ({row["name"] for row in rows if row["precision"] == "int8"} for rows in (old, new))
    products = {row["name"] for row in old if row["type"] in ("Conv", "Gemm", "MatMul")}
    assert products
    assert new_int8 & products == old_int8 & products
    if old_int8 & products:
        assert builds[2]["tensorrt"]["explicit"]
        assert (settings.out / "model.int8.onnx").is_file()
    else:
        assert (settings.out / "model.fp16.onnx").is_file()
