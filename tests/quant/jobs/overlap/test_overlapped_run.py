"""A whole run whose builds go on beside calibration and evaluation: the same files, errors and Ctrl-C."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from quant.backend import Found
from quant.child_process import can_have_children
from quant.errors import BuildError
from quant.jobs import run as job
from quant.onnxruntime.backend import OnnxRuntimeBackend
from quant.progress import RecordingConsole
from quant.settings.calib_toml import settings_from_options
from tests.child_builds import OnnxRuntimeAhead
from tests.child_work import Behaviour, appears

children = pytest.mark.skipif(not can_have_children(), reason="children end with their parent on Linux only")
OF_THE_MOMENT = ("created", "timings", "timeline", "peak_rss_mb", "verdict", "reason", "next", "command", "settings")
OF_SPEED = ("latency_ms", "latency_p99_ms", "latency_runs", "images_per_second", "speedup", "seconds")


class Listening(RecordingConsole):
    """Leaves files when the first images are calibrated on and evaluated."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def task(self, description, total):
        inner, folder = super().task(description, total), self.folder

        class Task:
            def __enter__(self):
                advance = inner.__enter__()
                return lambda images: ((folder / description).touch(), advance(images))

            def __exit__(self, *error):
                return inner.__exit__(*error)

        return Task()


class Begun:
    """A build that was begun, of which all is known already."""

    reused, span = False, None

    def __init__(self, take):
        self.take = take
        self.dropped = 0

    def is_there(self):
        return True

    def drop(self):
        self.dropped += 1


class AtOnce(OnnxRuntimeBackend):
    """A back end that begins builds, all of which are made when they are taken."""

    def begun(self, *arguments):
        return Begun(lambda: self.build(*arguments))

    def ahead(self):
        backend = self

        class Ahead(contextlib.nullcontext):
            def __enter__(self):
                return self

            def begin(self, *arguments):
                return backend.begun(*arguments)

            def expect(self, precision):
                pass

            def end(self):
                pass

        return Ahead()


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


@children
def test_report_and_files_are_those_of_builds_in_turn_while_calibration_and_evaluation_go_on(ran, colours, tmp_path):
    """FP32 and FP16 are built once calibration has begun, INT8 once evaluation has."""
    turns, first = ran(OnnxRuntimeBackend(), "turns")
    waits = {"fp32": tmp_path / "Calibrating", "fp16": tmp_path / "Calibrating", "int8": tmp_path / "Evaluating"}
    backend = OnnxRuntimeAhead(colours, Behaviour(waits=waits))
    beside, second = ran(backend, "beside", Listening(tmp_path))
    assert lasting(json.loads(json.dumps(turns).replace("/turns", "/beside"))) == lasting(beside)
    assert turns["verdict"] == beside["verdict"]
    for name in ("calibration.cache", "model.int8.onnx"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert (backend.loaded, backend.alone) == (["fp32", "fp16", "int8"], [])
    assert backend.notes == [f"{precision}: built by a child" for precision in backend.loaded]
    assert not list(colours.glob(".calib-*"))
    assert list(turns["timings"])[:2] == ["build fp32", "calibration"]
    assert set(beside["timings"]) == set(turns["timings"])
    times = beside["timeline"]
    assert times["build fp32"][0] < times["calibration"][0] < times["build fp32"][1]
    assert times["evaluation"][0] < times["build int8"][1] < times["evaluation"][1]
    assert times["build int8"][1] <= times["evaluation: latency"][0]  # nothing else runs while builds are timed


@children
def test_what_children_cannot_do_is_built_here_and_told_as_in_turn(ran, colours):
    """FP16 cannot be built at all; INT8's child is killed, but INT8 can."""

    def refuse(backend, model, precision, *rest):
        if precision == "fp16":
            raise BuildError("no kernel for fp16")
        return OnnxRuntimeBackend.build(backend, model, precision, *rest)

    class Turns(OnnxRuntimeBackend):
        build = refuse

    class Beside(OnnxRuntimeAhead):
        build = refuse

    turns, _ = ran(Turns(), "turns")
    backend = Beside(colours, Behaviour(fails={"fp16": "no memory", "int8": "kill"}))
    beside, _ = ran(backend, "beside")
    assert [build["precision"] for build in beside["builds"]] == ["fp32", "int8"]
    assert beside["failed_builds"] == turns["failed_builds"]
    assert beside["warnings"] == turns["warnings"]
    assert backend.loaded == ["fp32"]
    assert backend.notes == [
        "fp32: built by a child",
        "fp16: not built beside other work (no memory); it is built alone",
        "int8: not built beside other work (its process was ended by signal 9); it is built alone",
    ]


def test_what_cannot_be_built_is_told_in_the_same_order(ran):
    class Failing(OnnxRuntimeBackend):
        def build(self, model, precision, cache=None, float_nodes=frozenset()):
            if precision != "fp32":
                raise BuildError(f"no kernel for {precision}")
            return super().build(model, precision, cache, float_nodes)

    class FailingAhead(Failing, AtOnce):
        pass

    turns, _ = ran(Failing(), "turns")
    beside, out = ran(FailingAhead(), "beside")
    assert beside["warnings"] == turns["warnings"]
    assert [entry["precision"] for entry in beside["failed_builds"]] == ["fp16", "int8"]
    assert beside["failed_builds"] == turns["failed_builds"]
    assert not (out / "model.int8.onnx").exists()


def test_what_is_there_already_is_loaded_before_calibration(ran):
    class There(AtOnce):
        def begun(self, *arguments):
            return Found(self.build(*arguments))

    report, _ = ran(There(), "out")
    times = report["timeline"]
    assert times["build fp32"][1] <= times["build fp16"][0]
    assert times["build fp16"][1] <= times["calibration"][0]
    assert times["calibration"][1] <= times["build int8"][0]
    assert times["build int8"][1] <= times["evaluation"][0]
    assert all(report["timings"][f"build {precision}"] > 0 for precision in ("fp32", "fp16", "int8"))


def test_where_fp32_cannot_be_built_calibration_ends_and_nothing_is_written(ran, colours):
    calibrated = []

    class Failing(AtOnce):
        def build(self, model, precision, cache=None, float_nodes=frozenset()):
            raise BuildError("FP32 has no kernel")

    class Late(RecordingConsole):
        """It is known only when calibration has begun."""

        def task(self, description, total):
            monkey.setattr(Begun, "is_there", lambda begun: True)
            calibrated.append(description)
            return super().task(description, total)

    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(Begun, "is_there", lambda begun: False)
        with pytest.raises(BuildError, match="FP32 has no kernel"):
            ran(Failing(), "out", Late())
    assert calibrated == ["Calibrating"]
    assert [path.name for path in (colours / "out").rglob("*") if path.is_file() and path.name != ".lock"] == []


@children
def test_ctrl_c_ends_the_children_and_leaves_older_files_alone(ran, colours, snapshot, tmp_path):
    _, out = ran(AtOnce(), "out")
    before = snapshot(out)
    never = {"fp32": tmp_path / "never"}  # FP16 follows in the same child, and another one is ready for INT8

    class Pressing(RecordingConsole):
        def note(self, line):
            if line.startswith("task: "):
                appears(tmp_path / "fp32")
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ran(OnnxRuntimeAhead(out, Behaviour(waits=never, begun=tmp_path)), "out", Pressing())
    assert not Path("/proc", (tmp_path / "fp32").read_text()).exists()
    assert not (tmp_path / "fp16").exists()
    assert snapshot(out) == before


def test_a_model_that_onnx_runtime_cannot_run_waits_for_its_build(ran, monkeypatch):
    """What the model is for is then found from the build."""
    from quant.errors import ModelError
    from quant.jobs.overlap import run_builds

    class Refusing:
        def __init__(self, *_, **__):
            raise ModelError("no such operator")

    monkeypatch.setattr(run_builds, "OnnxRuntimeSession", Refusing)
    monkeypatch.setattr(Begun, "is_there", lambda begun: False)
    report, _ = ran(AtOnce(), "out")
    assert report["builds"][0]["top1"] == 100
    assert np.isfinite(report["builds"][2]["sqnr_db"])
