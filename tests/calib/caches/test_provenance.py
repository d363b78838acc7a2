import json
import os
from dataclasses import replace

import numpy as np
import pytest

from calib.algorithms import MinMax, Percentile
from calib.caches.cache import cache_from_amax
from calib.caches.provenance import (
    Calibration,
    ImageRecord,
    Source,
    differences,
    read_calibration,
    sidecar_paths,
    write_calibration,
)
from calib.errors import CacheError
from calib.histograms.statistics import Statistics
from tests.kills import run_script

IMAGES = tuple(ImageRecord(f"imgs/{c}.png", f"stat-{c}", c * 64) for c in "abc")
SOURCE = Source(
    model="1" * 64,
    data="2" * 64,
    preprocessing={"size": [32, 32], "mean": [0.5, 0.25, 0.125], "layout": "NCHW"},
    images=IMAGES,
    paths={"model": "m.onnx", "data": "imgs"},
    quarantined=(("imgs/c.png", "truncated"),),
)


@pytest.fixture
def calibration(histogram_of):
    histograms = {"input": histogram_of(np.arange(-16, 17) / 8), "dead": histogram_of([0.0, 0.0])}
    algorithm = Percentile(99.9)
    amax = {name: algorithm.amax(h) for name, h in histograms.items()}
    return Calibration(
        cache=cache_from_amax(amax, algorithm),
        algorithm="percentile",
        parameters={"percentile": 99.9},
        source=SOURCE,
        statistics=Statistics(histograms, images=2),
        versions={"calib": "0.1.0", "onnxruntime": "1.0"},
    )


@pytest.fixture
def written(calibration, tmp_path):
    write_calibration(calibration, tmp_path / "calibration.cache")
    return tmp_path / "calibration.cache"


def test_a_calibration_without_statistics_is_read_back(calibration, tmp_path):
    parameters = {"percentile": 99.9, "calibrator": "tensorrt", "batch_size": 64}
    native = replace(calibration, statistics=Statistics(images=512), parameters=parameters)
    write_calibration(native, tmp_path / "calibration.cache")
    read = read_calibration(tmp_path / "calibration.cache")
    assert (read.statistics.images, read.statistics.histograms) == (512, {})
    assert read.cache == native.cache
    assert read.parameters == parameters
    assert read.matches(Percentile(99.9))
    assert not read.matches(Percentile(99.0))
    assert not read.matches(MinMax())


def test_what_is_written_is_read_back(written, calibration, assert_same_histogram):
    read = read_calibration(written)
    assert read.cache == calibration.cache
    assert read.source == calibration.source
    assert (read.algorithm, read.parameters, read.versions) == (
        "percentile",
        {"percentile": 99.9},
        calibration.versions,
    )
    assert read.statistics.images == 2
    for name, histogram in calibration.statistics.histograms.items():
        assert_same_histogram(read.statistics.histograms[name], histogram)


def test_the_three_files_and_nothing_else_are_written(written):
    assert {path.name for path in written.parent.iterdir()} == {
        "calibration.cache",
        "calibration.json",
        "calibration.h5",
    }
    assert [path.name for path in sidecar_paths(written)] == ["calibration.json", "calibration.h5"]


def test_the_sidecar_tells_people_what_each_tensor_was(written):
    document = json.loads(written.with_suffix(".json").read_text())
    assert document["tensors"]["input"]["min"] == -2
    assert document["tensors"]["input"]["max"] == 2
    assert document["tensors"]["input"]["zeros"] == 1  # the middle one
    dead = document["tensors"]["dead"]
    assert dead.pop("amax") > 0
    assert dead == {"min": 0.0, "max": 0.0, "zeros": 2, "count": 2}
    assert document["zero_tensors"] == ["dead"]


def test_a_calibration_matches_its_own_algorithm_with_its_own_parameters(written):
    read = read_calibration(written)
    assert read.matches(Percentile(99.9))
    assert not read.matches(Percentile(99.99))
    assert not read.matches(MinMax())
    assert read.zero_tensors == ("dead",)


def test_equal_sources_do_not_differ_wherever_they_lie():
    assert differences(SOURCE, replace(SOURCE, paths={"model": "elsewhere"}, quarantined=())) == []


def test_another_model_is_named_by_its_hash():
    assert differences(SOURCE, replace(SOURCE, model="f" * 64)) == [
        "another model (SHA-256 111111111111, now ffffffffffff)"
    ]


def test_another_preprocessing_is_named_field_by_field():
    other = {"size": [32, 32], "mean": [0.5, 0.25, 0.5], "colour": "BGR"}
    assert differences(SOURCE, replace(SOURCE, preprocessing=other)) == [
        "other preprocessing (colour None, now BGR; layout NCHW, now None; "
        "mean [0.5, 0.25, 0.125], now [0.5, 0.25, 0.5])"
    ]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ((*IMAGES[:2], replace(IMAGES[2], sha256="d" * 64)), "3 then, 3 now; 1 changed: imgs/c.png"),
        ((*IMAGES, ImageRecord("new.png", "", "e" * 64)), "3 then, 4 now; 1 new: new.png"),
        (IMAGES[:1], "3 then, 1 now; 2 gone: imgs/b.png..."),
        (IMAGES[::-1], "3 then, 3 now; another order"),
        (
            (replace(IMAGES[0], sha256="d" * 64), IMAGES[1], ImageRecord("x.png", "", "e" * 64)),
            "3 then, 3 now; 1 changed: imgs/a.png, 1 new: x.png, 1 gone: imgs/c.png",
        ),
    ],
)
def test_other_images_are_counted_and_the_first_is_named(images, message):
    assert differences(SOURCE, replace(SOURCE, data="3" * 64, images=images)) == [f"other images ({message})"]


def test_all_differences_are_named_together():
    other = replace(SOURCE, model="f" * 64, data="3" * 64, preprocessing={}, images=())
    kinds = [line.split(" (")[0] for line in differences(SOURCE, other)]
    assert kinds == ["another model", "other preprocessing", "other images"]


def test_an_edited_cache_is_noticed(written):
    text = written.read_text()
    last = text.rstrip()[-1]
    written.write_text(text.rstrip()[:-1] + ("1" if last != "1" else "2") + "\n")
    with pytest.raises(CacheError, match=r"calibration\.cache: is not the file that calibration\.json describes"):
        read_calibration(written)


def test_swapped_statistics_are_noticed(written, calibration, tmp_path, histogram_of):
    others = Statistics({"input": histogram_of([9.0]), "dead": histogram_of([0.0])}, images=2)
    write_calibration(replace(calibration, statistics=others), tmp_path / "other" / "calibration.cache")
    (tmp_path / "other" / "calibration.h5").replace(tmp_path / "calibration.h5")
    with pytest.raises(CacheError, match=r"calibration\.h5: is not the file .*edited, swapped or missing"):
        read_calibration(written)


def test_a_swapped_sidecar_is_noticed(written, calibration, tmp_path):
    other = replace(calibration, cache=cache_from_amax({"input": 5.0, "dead": 1.0}, Percentile(99.9)))
    write_calibration(other, tmp_path / "other" / "calibration.cache")
    (tmp_path / "other" / "calibration.json").replace(tmp_path / "calibration.json")
    with pytest.raises(CacheError, match="is not the file that"):
        read_calibration(written)


def test_missing_files_are_noticed(written):
    written.with_suffix(".h5").unlink()
    with pytest.raises(CacheError, match=r"calibration\.h5: is not the file .*missing"):
        read_calibration(written)
    written.with_suffix(".json").unlink()
    with pytest.raises(CacheError, match=r"calibration\.json: the cache's provenance cannot be read .*--trust-cache"):
        read_calibration(written)


@pytest.mark.parametrize(
    "contents",
    [b"", b"{", b"[]", b"null", b"3", b"{}", b"\xff\xfe", b'{"schema": 1}', b'{"a":' + b"[" * 200_000, b"9" * 5000],
)
def test_a_sidecar_that_is_no_provenance_is_refused(written, contents):
    written.with_suffix(".json").write_bytes(contents)
    with pytest.raises(CacheError, match=r"calibration\.json: malformed provenance .*; recalibrate"):
        read_calibration(written)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("files",), []),
        (("files",), "x"),
        (("source",), []),
        (("source", "images"), [["a"]]),
        (("source", "images"), 5),
        (("source", "preprocessing"), None),
        (("source", "quarantined"), [[]]),
        (("parameters",), None),
        (("parameters",), {"percentile": []}),
        (("algorithm",), 5),
        (("versions",), {"calib": 1}),
        (("schema",), "1"),
        (("source", "model"), 5),
        (("source", "model"), None),
        (("source", "data"), ["x"]),
        (("source", "paths"), {"data": 5}),
        (("source", "images"), [[["a"], "b", "c"]]),
        (("source", "images"), [["a", 5, "c"]]),
        (("source", "images"), [["a", "\ud800", "c"]]),
        (("files",), {"calibration.cache": 5}),
    ],
)
def test_a_sidecar_with_a_part_of_another_type_is_refused(written, keys, value):
    sidecar = written.with_suffix(".json")
    document = json.loads(sidecar.read_text())
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    sidecar.write_text(json.dumps(document))
    with pytest.raises(CacheError, match=r"calibration\.json: malformed provenance"):
        read_calibration(written)


def every_value(document):
    """The places of all values of a document, as the keys that lead there."""
    inner = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(inner):
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *rest) for rest in every_value(value))


@pytest.mark.parametrize("value", [None, True, -1, 1.5, 10**400, "x", "\ud800", [], [[]], {}, {"a": [1]}])
def test_any_value_in_place_of_any_other_is_read_or_refused(written, value):
    sidecar = written.with_suffix(".json")
    whole = sidecar.read_text()
    for *keys, last in every_value(json.loads(whole)):
        document = json.loads(whole)
        inner = document
        for key in keys:
            inner = inner[key]
        inner[last] = value
        sidecar.write_text(json.dumps(document))
        try:
            found = read_calibration(written)
        except CacheError as error:
            assert "\n" not in str(error)
        else:
            assert differences(found.source, SOURCE) is not None
            assert found.matches(Percentile(99.9)) is not None


def test_names_that_are_no_unicode_do_not_make_the_sidecar_unreadable(calibration, tmp_path):
    image = ImageRecord(os.fsdecode(b"imgs/\xff.png"), "stat", "a" * 64)
    odd = replace(calibration, source=replace(SOURCE, images=(image,)))
    write_calibration(odd, tmp_path / "calibration.cache")
    assert read_calibration(tmp_path / "calibration.cache").source.images[0].sha256 == "a" * 64


@pytest.mark.parametrize("suffix", [".json", ".h5", ".cache"])
def test_a_file_that_is_no_regular_one_is_refused_at_once(written, suffix):
    written.with_suffix(suffix).unlink()
    os.mkfifo(written.with_suffix(suffix))
    with pytest.raises(CacheError):
        read_calibration(written)


KILLS = """
import json, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from calib.algorithms import MinMax
from calib.caches.cache import cache_from_amax
from calib.caches.provenance import Calibration, Source, foreign_file, read_calibration, write_calibration
from calib.errors import CacheError
from calib.histograms.histogram import BINS, Histogram
from calib.histograms.statistics import Statistics
from tests.kills import killed_at_each_step

cache, first = Path(sys.argv[1]) / "my.cache", sys.argv[2] == "first"

def calibration(seed):
    counts = np.zeros((2, BINS), np.int64)
    counts[1, seed] = 10
    histogram = Histogram.from_parts(counts, widths=(1.0, 1.0), zeros=0, minimum=seed, maximum=seed)  # without numba
    statistics = Statistics({"a": histogram}, images=seed)
    scales = cache_from_amax({"a": float(seed)}, MinMax())
    return Calibration(scales, "minmax", {}, Source(str(seed), "", {}, ()), statistics, {})

def set_up():
    for path in cache.parent.iterdir():
        path.unlink()
    if not first:
        write_calibration(calibration(1), cache)

seen = []
def look(step):
    try:
        found = read_calibration(cache)
        seen.append(found.source.model)
        assert found.statistics.images == int(found.source.model), step
        assert round(found.cache.amax["a"]) == int(found.source.model), step
    except CacheError as error:
        assert first and not list(cache.parent.glob("my.*")), (step, error)
        seen.append("none")
    assert foreign_file(cache) is None, step  # the next run may write here
    write_calibration(calibration(3), cache)
    assert read_calibration(cache).source.model == "3", step
    assert sorted(path.name for path in cache.parent.iterdir()) == ["my.cache", "my.h5", "my.json"], step
    set_up()

set_up()
kills = killed_at_each_step(lambda: write_calibration(calibration(2), cache), look)
print(json.dumps([kills, seen]))
"""


@pytest.mark.parametrize(("before", "older"), [("first", "none"), ("again", "1")])
def test_a_kill_at_any_step_leaves_the_older_calibration_or_the_new_one(tmp_path, before, older):
    kills, seen = run_script(KILLS, tmp_path, before)
    assert kills > 20
    turn = seen.index("2")
    assert set(seen[:turn]) == {older}
    assert set(seen[turn:]) == {"2"}


def test_a_sidecar_of_a_later_schema_is_refused(written):
    sidecar = written.with_suffix(".json")
    sidecar.write_text(sidecar.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(CacheError, match="expected schema 1, found 2"):
        read_calibration(written)


def test_a_cache_that_cannot_be_written_leaves_the_older_files(written, calibration, histogram_of):
    before = {path.name: path.read_bytes() for path in written.parent.iterdir()}
    bad = replace(calibration, cache=cache_from_amax({"two\nlines": 1.0}, MinMax()))
    with pytest.raises(CacheError, match="line break"):
        write_calibration(bad, written)
    assert {path.name: path.read_bytes() for path in written.parent.iterdir()} == before
