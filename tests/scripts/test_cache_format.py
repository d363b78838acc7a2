"""docs/cache-format.md describes what the files hold."""

import json
import re
import struct
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest

from calib import EntropyCalibrator, MinMax, Percentile, cache_from_text, write_statistics
from calib.algorithms import MSE, Entropy
from calib.caches.cache import header_from_algorithm
from calib.caches.conversion import json_from_cache, with_header
from calib.caches.provenance import read_calibration
from quant.jobs.cache_convert import convert_cache_file

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "cache-format.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"^```text\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def table(title):
    """Rows of the tables whose first column has this title, as lists of cells."""
    rows = re.findall(rf"^\| {re.escape(title)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    return [[cell.strip().strip("`") for cell in row.strip("|").split(" | ")] for row in "".join(rows).splitlines()]


@pytest.fixture(scope="session")
def provenance(prepared):
    return json.loads((prepared / "calib-out" / "calibration.json").read_text())


def test_the_example_is_a_cache_with_the_scales_of_its_bits():
    cache = cache_from_text(EXAMPLE)
    assert (cache.algo, cache.version, cache.zero_tensors) == ("entropy", 8600, ("dead",))
    assert list(cache.scales) == ["input", "layer1/Relu", "name: with a colon", "nearly dead", "dead"]
    assert cache.scales["input"] == np.float32(1 / 127)
    assert cache.scales["layer1/Relu"] == 2**-5
    assert cache.scales["name: with a colon"] == np.float32(0.3)
    assert cache.scales["nearly dead"] == struct.unpack(">f", b"\x0a\x9b\xc4\x5f")[0]
    assert cache.amax["dead"] == pytest.approx(1, rel=1e-7)


@pytest.mark.parametrize("line", ["a: bf800000", "a: 7f800000", "a: 7fc00000", "layer1/Relu: 3d000000", "a: 3d00"])
def test_what_the_page_calls_not_accepted_is_refused_with_its_line(line):
    from calib.errors import CacheError

    with pytest.raises(CacheError, match=":7: "):
        cache_from_text(f"{EXAMPLE}{line}")


def test_the_first_lines_are_those_that_are_written():
    shown = {row[0]: row[1] for row in table("algorithm")}
    for algorithm in (Entropy(), MinMax(), MSE(), Percentile()):
        assert shown.pop(algorithm.name) == header_from_algorithm(algorithm)
    assert shown == {"entropy1": with_header(cache_from_text(EXAMPLE), "entropy1").header}
    assert struct.pack(">dd", 1.0, 0.9999).hex() == "".join(header_from_algorithm(Percentile()).split()[1:])


def test_the_keys_of_the_provenance_are_those_that_are_written(provenance):
    assert [row[0] for row in table("key")[:9]] == list(provenance)
    assert {row[0] for row in table("key in `source`")} == set(provenance["source"])
    tensors = dict(table("key"))["tensors"]
    assert set(provenance["tensors"]["input"]) == set(re.findall(r"`(\w+)`", tensors)) - {"name"}
    assert set(provenance["files"]) == {"calibration.cache", "calibration.h5"}
    assert len(provenance["source"]["images"][0]) == 3


def test_the_data_sets_are_those_that_are_written(demo, tmp_path):
    from datasets import BatchStream, ImageFolder, Preprocessing
    from quant import collect_statistics, load_model

    model = load_model(demo / "model.onnx")
    fit = Preprocessing.from_spec(str(demo / "preprocess.toml")).bound_to(model.inputs[0].shape, "float32")
    stream = BatchStream(
        ImageFolder(demo / "imgs"), np.arange(64), preprocessing=fit, batch_size=64, input_name="input"
    )
    calibrator = EntropyCalibrator(stream, match_tensorrt=True)
    collect_statistics(model, calibrator)
    calibrator.statistics.left_out = ("masked", "shifted")  # this model holds no mask
    write_statistics(calibrator.statistics, tmp_path / "statistics.h5")
    sizes = {"N": len(calibrator.statistics.histograms), "M": 2}
    with h5py.File(tmp_path / "statistics.h5") as file:
        found = {name: [file[name].shape, file[name].dtype] for name in file}
        attributes = dict(file.attrs)
    assert set(found) == {row[0] for row in table("dataset")}
    for name, shape, kind, _ in table("dataset"):
        assert list(found[name][0]) == [sizes[n] if n in sizes else int(n) for n in shape.strip("[]").split(", ")]
        assert found[name][1].kind == "S" if kind == "UTF-8, one length" else found[name][1] == np.dtype(kind)
    assert set(attributes) == {row[0] for row in table("attribute of the file")}
    assert attributes["format"] == dict(table("attribute of the file"))["format"]


def test_the_keys_of_the_json_are_those_that_are_written(prepared):
    cache = read_calibration(prepared / "calib-out" / "calibration.cache").cache
    rows = [row[0] for row in table("key")[9:]]
    assert rows == list(json.loads(json_from_cache(replace(cache, made_by="several"))))
    assert [row for row in rows if row != "made_by"] == list(json.loads(json_from_cache(cache)))


def test_the_metadata_keys_are_those_that_a_converted_model_has(prepared, tmp_path):
    named = [row[0] for row in table("key in `metadata_props`")]
    convert_cache_file(prepared / "old.cache", tmp_path / "model.onnx", model=prepared / "model.onnx")
    assert [entry.key for entry in onnx.load(tmp_path / "model.onnx").metadata_props] == named[1:]
    of_run = onnx.load(prepared / "calib-out" / "model.int8.onnx").metadata_props
    assert [entry.key for entry in of_run] == named[:1] == ["calib.header"]
