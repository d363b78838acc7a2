"""A whole run whose builds go on beside calibration and evaluation: the same files, errors and Ctrl-C."""

import json
import threading
import time

import numpy as np
import pytest

from calib.interrupts import heed_interrupt
from quant.errors import BuildError
from quant.jobs import run as job
from quant.onnxruntime.backend import OnnxRuntimeBackend
from quant.progress import RecordingConsole
from quant.settings.calib_toml import settings_from_options

LONG = 120  # seconds after which a test has hung
OF_THE_MOMENT = ("created", "timings", "timeline", "peak_rss_mb", "verdict", "reason", "next", "command", "settings")
OF_SPEED = ("latency_ms", "latency_p99_ms", "latency_runs", "images_per_second", "speedup", "seconds")


class Overlapping(OnnxRuntimeBackend):
    """ONNX Runtime, with builds that may overlap; `before` is called in the thread of a build."""

    overlaps = True

    def __init__(self, before=lambda precision: None):
        super().__init__()
        self.before, self.threads = before, {}

    def build(self, model, precision, cache=None, float_nodes=frozenset()):
        self.threads[precision] = threading.current_thread()
        self.before(precision)
        return super().build(model, precision, cache, float_nodes)


class Listening(RecordingConsole):
    """Sets events at the first images that are calibrated on and evaluated."""

    def __init__(self):
        super().__init__()
        self.begun = {"Calibrating": threading.Event(), "Evaluating": threading.Event()}

    def task(self, description, total):
        inner = super().task(description, total)
        begun = self.begun

        class Task:
            def __enter__(self):
                advance = inner.__enter__()
                return lambda images: (begun[description].set(), advance(images))

            def __exit__(self, *error):
                return inner.__exit__(*error)

        return Task()


@pytest.fixture
def ran(colours, monkeypatch):
    """Runs in a folder of its own with a back end; gives the report, and the folder."""
    monkeypatch.chdir(colours)

    def run(backend, out, console=None):
        monkeypatch.setattr(job, "backend_from_settings", lambda *_: backend)
        cache = colours / out / "calibration.cache"
        job.run(settings_from_options({"out": colours / out, "cache": cache}), console)
        return json.loads((colours / out / "report.json").read_text()), colours / out

    return run


def lasting(value):
    """A report without what is of the moment and of speed."""
    if isinstance(value, dict):
        return {key: lasting(each) for key, each in value.items() if key not in (*OF_THE_MOMENT, *OF_SPEED)}
    return [lasting(each) for each in value] if isinstance(value, list) else value


def test_report_cache_and_model_are_those_of_builds_in_turn(ran):
    turns, first = ran(OnnxRuntimeBackend(), "turns")
    backend = Overlapping()
    beside, second = ran(backend, "beside")
    assert lasting(json.loads(json.dumps(turns).replace("/turns", "/beside"))) == lasting(beside)
    assert turns["verdict"] == beside["verdict"]
    for name in ("calibration.cache", "model.int8.onnx"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert threading.main_thread() not in backend.threads.values()
    assert list(turns["timings"])[:2] == ["build fp32", "calibration"]
    assert set(beside["timings"]) == set(turns["timings"])


def test_calibration_goes_on_while_fp32_is_built_and_evaluation_while_int8_is(ran):
    console, seen = Listening(), []

    def before(precision):
        awaited = {"fp32": "Calibrating", "fp16": "Calibrating", "int8": "Evaluating"}[precision]
        seen.append((precision, console.begun[awaited].wait(LONG)))

    report, _ = ran(Overlapping(before), "out", console)
    assert sorted(seen) == [("fp16", True), ("fp32", True), ("int8", True)]
    times = report["timeline"]
    assert times["build fp32"][0] < times["calibration"][0] < times["build fp32"][1]
    assert times["evaluation"][0] < times["build int8"][1] < times["evaluation"][1]
    assert times["build int8"][1] <= times["evaluation: latency"][0]  # nothing else runs while builds are timed


def test_what_cannot_be_built_is_told_in_the_same_order(ran):
    class Failing(OnnxRuntimeBackend):
        def build(self, model, precision, cache=None, float_nodes=frozenset()):
            if precision != "fp32":
                raise BuildError(f"no kernel for {precision}")
            return super().build(model, precision, cache, float_nodes)

    class FailingBeside(Failing):
        overlaps = True

    turns, _ = ran(Failing(), "turns")
    beside, out = ran(FailingBeside(), "beside")
    assert beside["warnings"] == turns["warnings"]
    assert [entry["precision"] for entry in beside["failed_builds"]] == ["fp16", "int8"]
    assert beside["failed_builds"] == turns["failed_builds"]
    assert not (out / "model.int8.onnx").exists()


def test_where_fp32_cannot_be_built_calibration_ends_and_nothing_is_written(ran, colours):
    def before(precision):
        if precision == "fp32":
            raise BuildError("FP32 has no kernel")

    backend = Overlapping(before)

    class Late(RecordingConsole):
        """Calibration begins when that is known."""

        def task(self, description, total):
            backend.threads["fp32"].join(LONG)
            return super().task(description, total)

    with pytest.raises(BuildError, match="FP32 has no kernel"):
        ran(backend, "out", Late())
    assert [path.name for path in (colours / "out").rglob("*") if path.is_file() and path.name != ".lock"] == []


def test_ctrl_c_during_a_build_ends_it_and_leaves_older_files_alone(ran, snapshot):
    _, out = ran(Overlapping(), "out")
    before, ended, building = snapshot(out), [], threading.Event()

    def build(precision):
        building.set()
        try:
            for _ in range(100 * LONG):
                heed_interrupt()
                time.sleep(0.01)
        finally:
            ended.append(precision)

    class Pressing(RecordingConsole):
        def note(self, line):
            if line.startswith("task: "):
                assert building.wait(LONG)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ran(Overlapping(build), "out", Pressing())
    assert sorted(ended) == ["fp16", "fp32"]
    assert snapshot(out) == before


def test_a_model_that_onnx_runtime_cannot_run_waits_for_its_build(ran, monkeypatch):
    """What the model is for is then found from the build."""
    from quant.errors import ModelError
    from quant.jobs.overlap import run_builds

    class Refusing:
        def __init__(self, *_, **__):
            raise ModelError("no such operator")

    monkeypatch.setattr(run_builds, "OnnxRuntimeSession", Refusing)
    report, _ = ran(Overlapping(), "out")
    assert report["builds"][0]["top1"] == 100
    assert np.isfinite(report["builds"][2]["sqnr_db"])
