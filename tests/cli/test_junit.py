"""`--junit FILE.xml`: a drop fails a pipeline by name. Read with the standard library's parser."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from calib.cli import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from calib.cli.commands import command_line
from quant.evaluation.verdict import EXIT_DONE, EXIT_DROP, EXIT_INVALID

ROOT = Path(__file__).resolve().parents[2]
INT8 = "calib-out/model.int8.onnx"


def cases(path):
    """Outcome and message of each case by name; the counts are those of the cases."""
    (suite,) = ET.parse(path).getroot()
    found = {}
    for case in suite:
        outcome = next((child for child in case if child.tag != "system-out"), None)
        found[case.get("name")] = ("passed", "") if outcome is None else (outcome.tag, outcome.get("message"))
    kinds = [outcome for outcome, _ in found.values()]
    for count, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(count)) == kinds.count(kind)
    assert int(suite.get("tests")) == len(kinds)
    return found


def outcomes(path):
    return {name: outcome for name, (outcome, _) in cases(path).items()}


def test_a_run_that_passes_has_a_case_for_each_build(calib, finished):
    assert calib("run", "--cache-only", "--junit", "out/calib.xml", cwd=finished).code == 0
    assert outcomes(finished / "out" / "calib.xml") == {
        "FP32 is above chance": "passed",
        "FP16 loses no more than 1 points of top-1": "passed",
        "INT8 loses no more than 1 points of top-1": "passed",
    }


def test_a_drop_fails_by_name(calib, finished):
    assert calib("run", "--max-drop", -1, "--recover", "off", "--junit", "calib.xml", cwd=finished).code == 3
    outcome, message = cases(finished / "calib.xml")["INT8 loses no more than -1 points of top-1"]
    assert outcome == "failure"
    assert message.startswith("INT8 loses 0.00 points of top-1, more than the allowed -1")


def test_fp32_at_chance_is_a_failure_and_the_rest_is_not_judged(calib, finished):
    (finished / "classes.txt").write_text("red\nblue\ngreen\n")
    assert calib("run", "--classes", "classes.txt", "--junit", "calib.xml", cwd=finished).code == 4
    assert list(outcomes(finished / "calib.xml").values()) == ["failure", "skipped", "skipped"]


def test_without_labels_the_drop_is_skipped(calib, finished):
    assert calib("run", "--no-labels", "--out", "o", "--junit", "calib.xml", cwd=finished).code == 0
    assert outcomes(finished / "calib.xml")["INT8 loses no more than 1 points of top-1"] == "skipped"


def test_an_error_is_a_case_too(calib, finished):
    (finished / "imgs").rename(finished / "gone")
    assert calib("run", "--junit", "calib.xml", cwd=finished).code == 1
    ((name, (outcome, message)),) = cases(finished / "calib.xml").items()
    assert (name, outcome) == ("calib run ends without an error", "error")
    assert "imgs: no such file or folder" in message


def test_compare_and_sweep_write_it_too(calib, finished):
    assert calib("compare", "model.onnx", INT8, "--max-drop", -1, "--junit", "c.xml", cwd=finished).code == 3
    assert outcomes(finished / "c.xml")["INT8 loses no more than -1 points of top-1"] == "failure"
    assert calib("sweep", "--out", "swept", "--junit", "s.xml", cwd=finished).code == 0
    ((name, outcome),) = outcomes(finished / "s.xml").items()
    assert "the best of the sweep, loses no more than 1" in name
    assert outcome == "passed"


def test_names_that_xml_cannot_hold_are_shown_as_escapes(calib, finished):
    name = "mo\x1b\ufffedel"
    (finished / "model.onnx").rename(finished / name)
    result = calib("compare", name, name, "--data", "imgs", "--junit", "c.xml", cwd=finished)
    assert result.code == 0, result.err
    assert all("\x1b" not in each and "\ufffe" not in each for each in cases(finished / "c.xml"))


@pytest.mark.parametrize("name", ["calib-out/report.json", "junit", "model.onnx"])
def test_a_name_of_something_else_is_refused_before_anything_is_done(calib, finished, snapshot, name):
    before = snapshot(finished)
    assert f"{name}: expected a name ending in .xml for --junit" in calib("run", "--junit", name, cwd=finished).error
    assert snapshot(finished) == before


def test_the_exit_codes_stand_in_one_table_that_the_code_keeps():
    codes = {EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_DROP, EXIT_INVALID, EXIT_INTERRUPTED}
    pages = {path.name: path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
    tables = {
        name: re.findall(r"^\| (\d+) \| ", text.partition("| exit code |")[2], re.M) for name, text in pages.items()
    }
    assert {name: [int(code) for code in found] for name, found in tables.items() if found} == {
        "README.md": sorted(codes)
    }
    told = command_line.help.partition("Exit codes:")[2]
    assert {int(code) for code in re.findall(r"\b(\d+) \w", told)} == codes
