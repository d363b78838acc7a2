"""Builds in child processes beside a run on a GPU: what comes of it is the same, and no process is left."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from quant.child_process import can_have_children
from quant.tensorrt.builds_ahead import LEAST_PROCESSORS, can_build_ahead

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not can_build_ahead(), reason=f"needs Linux and {LEAST_PROCESSORS} processors"),
]
ROOT = Path(__file__).resolve().parents[3]
AHEAD = "from calib.cli import main; main()"
IN_TURN = f"from quant.tensorrt import builds_ahead; builds_ahead.LEAST_PROCESSORS = 1 << 20; {AHEAD}"
OPTIONS = ["run", "--backend", "tensorrt", "--builder-level", "0", "--num-images", "256", "--collector", "cpu"]
HANGS = 240  # seconds after which a run has hung
PRECISIONS = ("fp32", "fp16", "int8")


def started(project, program, *options):
    """A run in a process of its own."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, "-c", program, *OPTIONS, *options],
        cwd=project,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    """What a run said; one that hangs is ended, and fails the test."""
    try:
        _, said = process.communicate(timeout=HANGS)
    finally:
        process.kill()
    return said


def status(pid):
    """State and parent of a process, by proc(5); no state if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return fields[0], int(fields[1])


def is_running(pid):
    """One that has ended and was not waited for is not."""
    return status(pid)[0] not in ("", "Z")


def children(process):
    """The processes that a process has started and that have not ended, the oldest first."""
    assert process.poll() is None, process.stderr.read()
    found = sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return [pid for pid in found if status(pid)[1] == process.pid and is_running(pid)]


def awaited(what):
    """Wait until something is so."""
    end = time.monotonic() + HANGS
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def project(demo_master, tmp_path):
    return shutil.copytree(demo_master, tmp_path / "digits")


def lasting(report):
    """Of a report, what depends neither on speed nor on kernels, whose choice differs between builds at level 0."""
    details = ("explicit", "batch", "network_layers", "filled_scales", "without_scale")
    builds = [[build["precision"], *(build["tensorrt"].get(key) for key in details)] for build in report["builds"]]
    return report["verdict"], report["warnings"], report["failed_builds"], builds


def test_a_run_comes_to_the_same_as_with_builds_in_turn(project):
    reports, said = {}, {}
    for name, program in (("ahead", AHEAD), ("turns", IN_TURN)):
        process = started(project, program, "--out", name)
        said[name] = ended(process)
        assert process.returncode == 0, said[name]
        reports[name] = json.loads((project / name / "report.json").read_text())
        assert not list((project / name).glob(".calib-*"))
    assert "beside other work" not in said["ahead"]
    assert lasting(reports["ahead"]) == lasting(reports["turns"])
    for ahead, turns in zip(reports["ahead"]["builds"], reports["turns"]["builds"], strict=True):
        assert abs(ahead["top1"] - turns["top1"]) <= 1.5
        assert (ahead["agreement"] or 100) >= 97
    assert (project / "ahead" / "calibration.cache").read_bytes() == (
        project / "turns" / "calibration.cache"
    ).read_bytes()
    times, turns = reports["ahead"]["timeline"], reports["turns"]["timeline"]
    assert times["build fp16"][0] < times["build int8"][1]
    assert times["calibration"][0] < times["build fp32"][1]
    assert all(times[f"build {precision}"][1] <= times["evaluation: latency"][0] for precision in PRECISIONS)
    assert turns["build fp32"][1] <= turns["calibration"][0]
    for precision in PRECISIONS:
        described = json.loads((project / "ahead" / f"model.{precision}.engine.json").read_text())
        assert (
            described["identity"]
            == (json.loads((project / "turns" / f"model.{precision}.engine.json").read_text())["identity"])
        )
    again = started(project, AHEAD, "--out", "ahead")
    told = ended(again)
    assert again.returncode == 0, told
    assert told.count("fits and is used again") == 4  # cache and three engines


def test_engines_of_children_answer_as_those_of_this_process(digits, digit_images, digit_cache, fast, tmp_path):
    from quant.tensorrt.backend import TensorRTBackend

    notes = []
    with TensorRTBackend(32, fast, engines=tmp_path, note=notes.append) as backend, backend.ahead() as ahead:
        begun = {p: ahead.begin(digits, p, digit_cache if p == "int8" else None) for p in PRECISIONS}
        here = {p: backend.build(digits, p, digit_cache if p == "int8" else None) for p in PRECISIONS}
        for precision, each in begun.items():
            build = each.take()
            assert each.span is not None, notes
            assert not build.reused
            found, expected = (each.runnable.run(digit_images)[0] for each in (build, here[precision]))
            assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.97
            error, signal_power = np.square(found - expected).mean(), np.square(expected).mean()
            assert error < signal_power / 100  # of kernels that differ between builds; other scales leave far more


def test_a_child_that_is_killed_costs_no_run(project):
    process = started(project, AHEAD)
    awaited(lambda: len(children(process)) == 2)  # for FP32 and FP16, and the one that gets ready for INT8
    os.kill(children(process)[0], signal.SIGKILL)
    said = ended(process)
    assert process.returncode == 0, said
    assert "fp16: not built beside other work (its process was ended by signal 9" in said
    report = json.loads((project / "calib-out" / "report.json").read_text())
    assert [build["precision"] for build in report["builds"]] == list(PRECISIONS)


# children load TensorRT, or build
@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGINT, 0), (signal.SIGINT, 5), (signal.SIGTERM, 0), (signal.SIGKILL, 5)]
)
def test_however_a_run_ends_no_child_is_left(project, number, seconds):
    process = started(project, AHEAD)
    awaited(lambda: len(children(process)) == 2)
    left = children(process)
    time.sleep(seconds)
    process.send_signal(number)
    said = ended(process)
    if number == signal.SIGINT and process.returncode != 0:  # it may have been quicker than this test
        assert process.returncode == 130, said
        assert not list((project / "calib-out").glob(".calib-*"))
    awaited(lambda: not any(map(is_running, left)))


def test_where_kernels_are_timed_nothing_is_built_ahead(backend, tmp_path):
    assert can_have_children()
    for level in (1, None):
        assert backend(level=level, engines=tmp_path).ahead() is None
    with backend(level=0, engines=tmp_path).ahead() as ahead:
        assert ahead is not None
    assert backend(level=0).ahead() is None  # there is no folder for what children write
