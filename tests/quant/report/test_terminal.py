"""A result on a terminal: 80 columns, nothing that does not apply, and a command that can be pasted."""

import json
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from quant.report.contents.guidance.next_step import next_step
from quant.report.views.charts import charts_from_document
from quant.report.views.render import html_from_document
from quant.report.views.terminal.summary import WIDTH, summary_from_document, table_lines
from quant.settings.calib_toml import settings_from_options


@pytest.fixture(autouse=True)
def charts(without_charts):
    """Draws none: test_charts.py reads them."""
    without_charts()


@pytest.fixture
def found(finished):
    return json.loads((finished / "calib-out" / "report.json").read_text())


def widened(document, **parts):
    """The same report with other figures in each row."""
    return document | {"builds": [row | parts for row in document["builds"]]}


HUGE = {
    "top1": 100.0, "top5": 100.0, "drop_top1": -100.0, "drop_ci95": [-100.0, 100.0], "agreement": 100.0,
    "sqnr_db": 123.4, "latency_ms": 1_234_567.89, "speedup": 1234.56, "bytes": 10**13, "images_per_second": 1e9,
    "map": 100.0, "map50": 100.0, "drop_map": -100.0, "drop_map_ci95": [-100.0, 100.0], "agreement_map": 100.0,
    "agreement_map50": 100.0,
}  # fmt: skip


@pytest.mark.parametrize("left", [HUGE, {}, {"top1": None, "drop_top1": None, "drop_ci95": None}, {"agreement": None}])
def test_the_table_takes_80_columns_at_most(found, left):
    lines = table_lines(widened(found, **left))
    assert len(lines) == 1 + len(found["builds"])
    assert len({len(line) for line in lines}) == 1, "columns stand below each other"
    assert len(lines[0]) <= WIDTH
    if left == HUGE:
        assert "Top-1 %" in lines[0] and "Drop" in lines[0]  # what decides is never left out


def test_long_names_of_files_are_cut_at_their_beginning(found):
    rows = [
        row | {"precision": "int8", "file": f"runs/{i}/{'deep/' * 30}model-{i}.onnx"}
        for i, row in enumerate(found["builds"])
    ]
    lines = table_lines(widened(found | {"builds": rows, "compared": []}, **HUGE) | {"compared": [{"role": "a"}]})
    assert all(len(line) <= WIDTH for line in lines)
    assert [line.split()[0][-12:] for line in lines[1:]] == [f"model-{i}.onnx" for i in range(3)]


def test_top5_of_three_classes_is_left_out(found):
    assert found["classes"] == ["blue", "green", "red"]
    assert found["builds"][0]["top5"] is None
    assert "Top-5" not in summary_from_document(found, Path("out"))


def test_sentences_are_broken_between_words_and_commands_are_not(found):
    command = "calib run --algo entropy --data " + "a/" * 60
    document = found | {"next": {"why": "because " * 20, "command": command}}
    lines = summary_from_document(document, Path("out"), 80).splitlines()
    assert f"  {command}" in lines
    assert all(len(line) <= 80 for line in lines if line != f"  {command}")
    whole = summary_from_document(document, Path("out")).splitlines()
    assert " ".join(" ".join(lines).split()) == " ".join(" ".join(whole).split())


def test_the_latency_of_a_cpu_is_called_no_forecast_beside_the_figure(found):
    text = summary_from_document(found, Path("out"))
    assert "ms: a batch of 8 on this CPU; that is no forecast for a GPU" in text
    on_gpu = found | {"backend": found["backend"] | {"name": "tensorrt"}}
    assert "forecast" not in summary_from_document(on_gpu, Path("out")).split("\n\n")[0]


def test_the_next_step_of_each_verdict_is_a_command_that_runs(calib, finished, found):
    """Nothing follows from a pass but to hold it; from a fail, all algorithms are tried."""
    assert found["verdict"] == "pass"
    document = json.loads(calib("run", "--max-drop", -1, "--json", "--quiet", "--out", "strict", cwd=finished).out)
    assert (document["verdict"], document["exit_code"]) == ("fail", 3)
    command = shlex.split(document["next"]["command"])
    assert command == ["calib", "sweep", "--out", "strict"]
    assert calib(*command[1:], "--quiet", cwd=finished).code == 0


def changed(document, **row):
    """A report whose INT8 row says something else."""
    return document | {"builds": [*document["builds"][:-1], document["builds"][-1] | row]}


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("gate", "calib run --cache-only --junit calib.junit.xml"),
        ("doctor", "calib doctor"),
        ("more", "calib run --num-images 8"),
    ],
)
def test_what_follows_from_a_pass_is_a_command_that_runs(calib, finished, found, monkeypatch, what, expected):
    """Which one it is depends on the machine's speed and on chance, so the report is given each reason."""
    told = changed(found, enough_images=True)
    document = {
        "gate": told | {"chosen": "int8"},
        "doctor": told | {"chosen": "fp32"},
        "more": changed(found, enough_images=False) | {"convergence": found["convergence"] | {"enough": 8}},
    }[what]
    monkeypatch.chdir(finished)
    step = next_step(document, settings_from_options({}))
    assert step["command"] == expected
    result = calib(*shlex.split(step["command"])[1:], cwd=finished)
    assert result.code == 0, result.err
    if what == "gate":
        assert ET.parse(finished / "calib.junit.xml").getroot().tag == "testsuites"
    if what == "more":
        ran = json.loads((finished / "calib-out" / "report.json").read_text())["data"]
        assert (ran["calibration"]["images"], ran["evaluation"]["images"]) == (8, 28)


def test_how_many_images_are_enough_stands_in_every_form_and_survives_reuse(calib, finished, found, monkeypatch):
    convergence = found["convergence"]
    assert convergence["images"] == 24
    assert [row["images"] for row in convergence["scales"]] == sorted({row["images"] for row in convergence["scales"]})
    assert all(row["images"] < 24 for row in convergence["scales"])
    last = convergence["verdict"][-1]
    assert (last["images"], last["figure"], last["value"]) == (12, "drop", found["builds"][-1]["drop_top1"])
    assert last["interval"] == found["builds"][-1]["drop_ci95"]
    assert f"calibration: {convergence['text']}" in summary_from_document(found, Path("out"))
    for name in ("report.html", "report.md"):
        assert "How many images are enough" in (finished / "calib-out" / name).read_text()
    drawn = charts_from_document(found | {"confusion": None, "reliability": [], "tensors": [], "layers": None})
    with monkeypatch.context() as patch:
        patch.setattr("quant.report.views.render.charts_from_document", lambda document: drawn)
        assert 'id="convergence-value.moves.0"' in html_from_document(found)

    again = json.loads(calib("run", "--json", "--quiet", cwd=finished).out)
    assert again["calibration"]["how"] == "reused"
    assert again["convergence"] == convergence
    other = json.loads(calib("run", "--algo", "mse", "--json", "--quiet", cwd=finished).out)
    assert other["calibration"]["how"] == "recomputed"
    assert other["convergence"] is None  # parts of the images are not known for another algorithm
