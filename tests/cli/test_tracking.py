"""`--log`: settings, figures and the report in an experiment tracker, through the tracker's own client."""

import json
import sys

import pytest

from quant.report.tracking import clients
from quant.report.tracking.record import record_from_report, record_from_sweep

BUILDS = ("fp32", "fp16", "int8")


def test_a_report_s_settings_are_params_and_its_figures_metrics(finished, report):
    document = report(finished)
    found = record_from_report(document)
    for name, row in zip(BUILDS, document["builds"], strict=True):
        assert found.metrics[f"{name}/top1"] == row["top1"]
        assert found.metrics[f"{name}/latency_ms"] == row["latency_ms"]
    int8 = document["builds"][2]
    assert [found.metrics[f"int8/drop_ci95_{end}"] for end in ("low", "high")] == int8["drop_ci95"]
    assert found.metrics["exit_code"] == 0
    assert found.params["algo"] == "minmax"
    assert found.params["model sha256"] == document["model"]["sha256"]
    assert found.tags["verdict"] == "pass"
    assert found.files == ("report.html", "report.md", "report.json")
    assert all(isinstance(value, float) for value in found.metrics.values())
    assert all(isinstance(value, str) for value in {**found.params, **found.tags}.values())


def test_names_hold_only_what_trackers_take(finished, report):
    document = report(finished)
    document["compared"] = [{"role": "baseline"}]
    for row, file in zip(document["builds"], ("a.onnx", "b (2).onnx", "ü:c.onnx"), strict=True):
        row |= {"precision": "int8", "file": file}
    names = {name.split("/")[0] for name in record_from_report(document).metrics if name.endswith("/top1")}
    assert names == {"a.onnx", "b _2_.onnx", "__c.onnx"}


@pytest.mark.parametrize("name", clients.TRACKERS)
def test_a_client_that_is_missing_is_one_line_before_anything_is_done(calib, colours, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    result = calib("run", "--log", name, cwd=colours)
    assert (result.code, result.out) == (1, "")
    (line,) = [line for line in result.err.splitlines() if line.startswith("calib: error: ")]
    assert f"--log {name}: expected the package {name}, found none" in line
    assert f"pip install 'calib-int8[{name}]'" in line
    assert not (colours / "calib-out").exists()


class Refusing:
    """A tracker whose server takes nothing."""

    closed: list[bool] = []  # noqa: RUF012 - looked at by the test

    def __init__(self, job):
        print(f"opened for {job}")

    def record(self, found, folder):
        raise ConnectionError("the server\nis away.")

    def close(self, *, failed):
        self.closed.append(failed)


def test_a_client_that_does_not_take_the_results_is_one_line_and_the_results_stay(calib, finished, monkeypatch, report):
    monkeypatch.setitem(clients.TRACKERS, "mlflow", Refusing)
    result = calib("compare", "model.onnx", "calib-out/model.int8.onnx", "--json", "--log", "mlflow", cwd=finished)
    assert result.code == 1
    assert result.out == ""  # what the client prints goes elsewhere
    assert "opened for compare" in result.err
    said = "calib: error: --log mlflow: the server is away; the results themselves are in calib-compare"
    assert said in result.err.splitlines()
    assert report(finished, "calib-compare")["verdict"] == "pass"
    assert Refusing.closed == [True]


def test_a_job_that_fails_fails_in_the_tracker_too(calib, colours, monkeypatch):
    Refusing.closed.clear()
    monkeypatch.setitem(clients.TRACKERS, "wandb", Refusing)
    result = calib("run", "--data", "nothing", "--log", "wandb", cwd=colours)
    assert result.code == 1
    assert "nothing" in result.err.splitlines()[-1]
    assert Refusing.closed == [True]


def test_mlflow_keeps_params_metrics_and_report(calib, finished, monkeypatch, report):
    mlflow = pytest.importorskip("mlflow", reason="needs pip install 'calib-int8[mlflow]'")
    store = (finished / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(store)
    assert calib("run", "--log", "mlflow", cwd=finished).code == 0
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs(["0"])
    document = report(finished)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["int8/top1"] == document["builds"][2]["top1"]
    assert run.data.params["algo"] == "minmax"
    assert run.data.tags["verdict"] == "pass"
    kept = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert kept == {"report.html", "report.md", "report.json"}


def test_wandb_works_offline(calib, finished, monkeypatch):
    pytest.importorskip("wandb", reason="needs pip install 'calib-int8[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(finished))
    result = calib("sweep", "--json", "--log", "wandb", cwd=finished)
    assert result.code == 0, result.err
    document = json.loads(result.out)  # nothing of the client's beside it
    assert len(record_from_sweep(document).metrics) > 20
    (folder,) = (finished / "wandb").glob("offline-run-*")
    assert [path.stat().st_size > 1000 for path in folder.glob("run-*.wandb")] == [True]
