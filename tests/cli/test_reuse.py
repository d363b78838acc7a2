"""A second run: what it reuses, what it computes again, and what it says."""

from tests.outcome import calibration_images


def test_a_second_run_reads_no_calibration_image(calib, colours, report, snapshot, opened):
    assert calib("run", cwd=colours).code == 0
    cache = {path: state for path, state in snapshot(colours / "calib-out").items() if "calibration" in path.name}
    opened.clear()

    result = calib("run", cwd=colours)

    assert result.code == 0
    assert "fits and is used again" in result.err
    assert not set(opened) & set(calibration_images(colours))
    assert set(opened), "the evaluated images are read"
    found = report(colours)["calibration"]
    assert (found["how"], found["reused"], found["images"]) == ("reused", True, 24)
    after = snapshot(colours / "calib-out")
    assert {path: after[path] for path in cache} == cache


def test_cache_only_runs_on_a_cache_that_fits(calib, finished, report):
    assert calib("run", "--cache-only", cwd=finished).code == 0
    assert report(finished)["calibration"]["how"] == "reused"


def test_cache_only_stops_when_something_differs(calib, finished, snapshot):
    older = snapshot(finished / "calib-out")
    result = calib("run", "--quiet", "--cache-only", "--preprocess", "imagenet-tf", cwd=finished)
    assert result.code == 1
    assert "calib-out/calibration.cache: cannot be used: other preprocessing" in result.error
    assert "leave out --cache-only" in result.error
    assert snapshot(finished / "calib-out") == older


def test_a_cache_elsewhere_is_written_there_with_what_goes_beside_it(calib, colours, report):
    caches = colours / "caches"
    assert calib("run", "--cache", caches / "mine.cache", cwd=colours).code == 0
    assert report(colours)["calibration"]["cache"] == str(caches / "mine.cache")
    assert {path.name for path in caches.iterdir()} - {".lock"} == {"mine.cache", "mine.json", "mine.h5"}
    assert not (colours / "calib-out" / "calibration.cache").exists()


def test_a_cache_in_the_output_folder_may_be_spelled_in_another_way(calib, colours):
    result = calib("run", "--cache", colours / "calib-out" / "mine.cache", "--out", "calib-out", cwd=colours)
    assert result.code == 0, result.err
