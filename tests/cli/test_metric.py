"""`--metric file.py:callable` in run and sweep."""

import json

import pytest

METRICS = """
import numpy as np

def negative_error(outputs, labels):
    # regression: how near the red channel's logit is to 1 for red images and to 0 for others
    return -np.abs(outputs["logits"][:, 2] - (labels == 2))

def unlabelled(outputs, labels):
    assert labels is None
    return outputs["logits"].max(1)

def evil_name(outputs, labels):
    return np.zeros(len(outputs["logits"]))

def fails(outputs, labels):
    raise ValueError("two\\nlines")

def ends(outputs, labels):
    raise SystemExit(0)
"""


@pytest.fixture
def project(colours):
    (colours / "my metrics.py").write_text(METRICS)
    return colours


@pytest.mark.charts
def test_run_reports_the_metric_with_its_drop_and_interval(calib, project):
    result = calib("run", "--metric", "my metrics.py:negative_error", cwd=project)
    assert result.code == 0, result.err
    out = project / "calib-out"
    section = json.loads((out / "report.json").read_text())["metric"]
    builds = {build["precision"]: build for build in section["builds"]}
    assert set(builds) == {"fp32", "fp16", "int8"}
    int8 = builds["int8"]
    assert int8["drop"] == pytest.approx(builds["fp32"]["score"] - int8["score"])
    assert int8["drop_ci95"][0] <= int8["drop"] <= int8["drop_ci95"][1]
    assert f"negative_error of int8: {int8['score']:.6g}, drop {int8['drop']:+.4g}" in result.out
    markdown, html = (out / "report.md").read_text(), (out / "report.html").read_text()
    assert "## negative\\_error" in markdown
    assert "<h2>negative_error</h2>" in html
    for text in (markdown, html):
        assert f"{int8['drop']:+.4g}" in text
        assert "paired bootstrap of 2,000 resamples, seed 0" in text


def test_a_drop_may_be_allowed_in_the_metrics_own_unit(calib, project):
    """Logits far from 0 and 1: a per cent of the score would allow what the unit does not."""
    metric, found = ("--metric", "my metrics.py:negative_error"), {}
    for allowed in ("1e-9", "5"):
        result = calib("run", *metric, "--max-metric-drop", allowed, "--recover", "off", "--json", cwd=project)
        found[allowed] = json.loads(result.out)
        section = found[allowed]["metric"]
        assert (section["allowed_drop"], section["allowed_in_unit"]) == (float(allowed), True)
    drop = next(row["drop"] for row in section["builds"] if row["precision"] == "int8")
    assert found["5"]["verdict"] == "pass"
    assert found["1e-9"]["verdict"] == ("pass" if drop <= 1e-9 else "fail")
    assert "--max-metric-drop 5" in found["5"]["command"]
    assert "5 is allowed" in (project / "calib-out" / "report.md").read_text()
    refused = calib("run", "--max-metric-drop", "5", cwd=project)
    assert (refused.code, "no metric" in refused.error) == (1, True)


@pytest.mark.charts
def test_without_labels_the_metric_gets_none(calib, project):
    for i, path in enumerate(sorted((project / "imgs").rglob("*.png"))):
        path.rename(project / "imgs" / f"{i}.png")
    for folder in ("blue", "green", "red"):
        (project / "imgs" / folder).rmdir()
    result = calib("run", "--metric", "my metrics.py:unlabelled", "--precision", "fp32", "--json", cwd=project)
    assert result.code == 0, result.err
    assert json.loads(result.out)["metric"]["builds"][0]["score"] > 0


def test_a_report_without_a_metric_has_no_section(finished):
    assert json.loads((finished / "calib-out" / "report.json").read_text())["metric"] is None
    assert "bootstrap" not in (finished / "calib-out" / "report.md").read_text()


def test_in_a_sweep_the_metric_s_drop_decides(calib, project):
    result = calib("sweep", "--metric", "my metrics.py:negative_error", "--json", cwd=project)
    document = json.loads(result.out)
    assert document["decided_by"] == "metric"
    drops = [row["metric_drop"] for row in document["rows"]]
    assert drops == sorted(drops)
    assert all(row["metric_ci95"][0] <= row["metric_drop"] <= row["metric_ci95"][1] for row in document["rows"])
    assert "Drop of negative_error" in (project / "calib-out" / "sweep.svg").read_text()


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("my metrics.py:absent", "metric: my metrics.py has no callable 'absent'"),
        ("none.py:f", "metric: none.py: no such file"),
        ("my metrics.py", "metric: expected file.py:callable, found 'my metrics.py'"),
        ("my metrics.py:ends", "line 19: SystemExit: 0"),
        ("my metrics.py:fails", "line 16: ValueError: two lines"),
    ],
)
def test_a_bad_metric_fails_with_one_line(calib, project, spec, part):
    result = calib("run", "--quiet", "--metric", spec, cwd=project)
    assert result.code == 1
    assert part in result.error
    assert not (project / "calib-out" / "report.json").exists()


MARK = """
from pathlib import Path
Path("executed").touch()
def score(outputs, labels):
    return [1.0] * len(next(iter(outputs.values())))
"""


@pytest.fixture
def downloaded(finished):
    """A folder as it may come from someone else: its calib.toml names code."""
    (finished / "theirs.py").write_text(MARK)
    config = finished / "calib.toml"
    config.write_text(config.read_text() + '\nmetric = "theirs.py:score"\n')
    return finished


@pytest.mark.parametrize(
    "command", [("run",), ("sweep",), ("compare", "model.onnx", "calib-out"), ("run", "--precision", "fp32")]
)
def test_code_that_only_the_folder_names_is_not_executed(calib, downloaded, snapshot, command):
    older = snapshot(downloaded)
    error = calib(*command, cwd=downloaded).error
    assert "calib.toml: metric: would execute theirs.py with your rights" in error
    assert "--allow-code, or --metric theirs.py:score" in error
    assert snapshot(downloaded) == older


@pytest.mark.parametrize("asked", [("--allow-code",), ("--metric", "theirs.py:score")])
def test_code_that_the_user_asks_for_is_executed_and_named(calib, downloaded, asked):
    result = calib("run", "--precision", "fp32", *asked, cwd=downloaded)
    assert result.code == 0, result.err
    assert f"metric: executes {downloaded / 'theirs.py'}\n" in result.err
    assert (downloaded / "executed").exists()


def test_a_report_does_not_make_compare_execute_code(calib, downloaded):
    calib("run", "--allow-code", "--quiet", cwd=downloaded)
    (downloaded / "executed").unlink()
    config = downloaded / "calib.toml"
    config.write_text(config.read_text().replace("metric", "# metric"))
    assert calib("compare", "model.onnx", "calib-out", cwd=downloaded).code == 0
    assert not (downloaded / "executed").exists()
