"""docs/quickstart.ipynb: its cells run from top to bottom, and what they end with shows itself."""

import ast
import json
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "docs" / "quickstart.ipynb"
NOTEBOOK = json.loads(PATH.read_text(encoding="utf-8"))


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


def test_the_notebook_runs_in_jupyter_and_reports_and_sweeps_show_themselves(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="nbformat reads notebooks as Jupyter does")
    nbclient = pytest.importorskip("nbclient", reason="nbclient runs notebooks as Jupyter does")
    pytest.importorskip("ipykernel", reason="a notebook needs a kernel")
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
    notebook.cells.append(nbformat.v4.new_code_cell("print(report['verdict'])"))
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    report, sweep = (output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {}))
    assert report.startswith("<iframe sandbox ")
    assert "points of top-1 (95 % CI" in report
    assert "<script" not in report  # escaped within the frame's attribute
    assert sweep.startswith("<pre>Algorithm ")
    assert "<svg" in sweep and sweep.rstrip().endswith("</svg>")
    files = ast.literal_eval(cells[-1].outputs[-1]["data"]["text/plain"])
    assert {"calibration.cache", "model.int8.onnx", "sweep.json"} <= set(files)
    printed = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    assert "Calibrating: 128 of 128 images\n" in printed
    assert "images: " in printed
    assert printed.endswith("pass\n")


def test_the_notebook_is_stored_without_outputs():
    for cell in NOTEBOOK["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
