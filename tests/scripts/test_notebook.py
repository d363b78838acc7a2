"""docs/quickstart.ipynb: its cells run from top to bottom, and what they end with shows itself."""

import ast
import json
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "docs" / "quickstart.ipynb"
NOTEBOOK = json.loads(PATH.read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def last_value(source, names):
    """Run a cell as a notebook does; the value of its last line if that is an expression."""
    *body, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        body, last = [*body, last], None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_the_cells_run_and_reports_and_sweeps_show_themselves(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names = {"__name__": "__main__"}
    values = [last_value(cell, names) for cell in CODE]
    shown = [value._repr_html_() for value in values if hasattr(value, "_repr_html_")]
    report, sweep = shown
    assert report.startswith("<iframe sandbox ")
    assert "points of top-1 (95 % CI" in report
    assert "<script" not in report  # escaped within the frame's attribute
    assert names["report"]["verdict"] == "pass"
    assert sweep.startswith("<pre>Algorithm ")
    assert "<svg" in sweep and sweep.rstrip().endswith("</svg>")
    assert {"calibration.cache", "model.int8.onnx", "sweep.json"} <= set(values[-1])
    printed = capsys.readouterr().out
    assert "Calibrating: 128 of 128 images\n" in printed
    assert "images: " in printed


def test_the_page_on_disk_is_shown_only_where_it_is_this_report_s(finished):
    from quant.report.views.notebook.shown import ShownReport

    report = ShownReport(json.loads((finished / "calib-out" / "report.json").read_text()))
    report["working_folder"] = str(finished)
    page = finished / "calib-out" / "report.html"
    page.write_text(page.read_text().replace("</body>", "from the disk</body>"))
    assert "from the disk" in report._repr_html_()
    assert "from the disk" not in ShownReport(report | {"created": "another day"})._repr_html_()
    page.unlink()
    assert "points of top-1" in report._repr_html_()


def test_the_notebook_runs_in_jupyter(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="nbformat reads notebooks as Jupyter does")
    nbclient = pytest.importorskip("nbclient", reason="nbclient runs notebooks as Jupyter does")
    pytest.importorskip("ipykernel", reason="a notebook needs a kernel")
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("text/html" in output.get("data", {}) for output in outputs) == 2


def test_the_notebook_is_stored_without_outputs():
    for cell in NOTEBOOK["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
