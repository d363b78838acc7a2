"""The command itself on a GPU: files, reuse, and what is left after a failure."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quant.tensorrt.bindings import load_tensorrt

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-c", "from calib.cli import main; main()", "run", "--backend", "tensorrt"]
QUICK = ["--builder-level", "0", "--num-images", "256"]


def environment():
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)}


@pytest.fixture(scope="module")
def project(demo_master, tmp_path_factory):
    """A copy of what `calib demo` writes, which the tests of this file run in one after the other."""
    return shutil.copytree(demo_master, tmp_path_factory.mktemp("gpu") / "digits")


@pytest.fixture
def calib(project):
    """Runs `calib run` on the sample in a process of its own."""

    def run(*options):
        return subprocess.run(
            [*COMMAND, *QUICK, *options],
            cwd=project,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )

    return run


@pytest.fixture
def finished(calib, project):
    """A run that went well: what is in place before something goes wrong."""
    done = calib()
    assert done.returncode == 0, done.stderr
    return project


@pytest.fixture
def digests(project):
    names = ("calibration.cache", "model.int8.engine", "model.fp16.engine", "report.json")
    return lambda: {n: hashlib.sha256((project / "calib-out" / n).read_bytes()).hexdigest() for n in names}


def report(project):
    return json.loads((project / "calib-out" / "report.json").read_text())


def test_a_run_writes_engines_cache_and_report_and_the_next_uses_them_again(calib, finished):
    out = finished / "calib-out"
    for precision in ("fp32", "fp16", "int8"):
        assert (out / f"model.{precision}.engine").stat().st_size == next(
            build["bytes"] for build in report(finished)["builds"] if build["precision"] == precision
        )
    found = report(finished)
    assert found["backend"]["name"] == "tensorrt"
    assert all(build["latency_p99_ms"] >= build["latency_ms"] > 0 for build in found["builds"])
    assert all(build["latency_runs"] >= 100 for build in found["builds"])
    assert found["builds"][-1]["tensorrt"]["graph"]["precisions"]
    again = calib()
    assert again.returncode == 0, again.stderr
    assert "no image is read for calibration" in again.stderr
    assert again.stderr.count("fits and is used again") == 4  # cache and three engines


def test_the_drop_of_int8_is_measured_on_labelled_images(finished):
    int8 = report(finished)["builds"][-1]
    assert abs(int8["drop_top1"]) <= 2
    assert int8["agreement"] >= 97


@pytest.mark.parametrize("options", [("--explicit",), ("--dynamic", "1:8:64"), ("--strict-int8",)])
def test_each_kind_of_build_goes_through_the_command(calib, project, options):
    done = calib("--out", f"out{options[0]}", *options)
    assert done.returncode == 0, done.stderr


def test_tensorrt_s_own_calibration_is_used_again(calib, project):
    if not load_tensorrt().has_calibrators:
        pytest.skip("TensorRT 11 has no calibrators")
    first = calib("--calibrator", "tensorrt", "--out", "native", "--precision", "int8")
    assert first.returncode == 0, first.stderr
    again = calib("--calibrator", "tensorrt", "--out", "native", "--precision", "int8", "--cache-only")
    assert again.returncode == 0, again.stderr
    assert "no image is read for calibration" in again.stderr


@pytest.mark.usefixtures("memory_returns")
@pytest.mark.parametrize("seconds", [0, 1, 4])  # while images are read, TensorRT is loaded, an engine is built
def test_ctrl_c_leaves_older_files_and_no_process(calib, finished, digests, seconds):
    """What was complete by then is kept, as a set, and named: the calibration, and measured kernels."""
    older = digests()
    with subprocess.Popen(
        [*COMMAND, *QUICK, "--seed", "1"],
        cwd=finished,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        next(line for line in process.stderr if "back end" in line)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130, said
    last = said.splitlines()[-1]
    assert last.startswith("calib: interrupted; "), said
    changed = {name for name, digest in digests().items() if digest != older[name]}
    assert changed <= {"calibration.cache"}
    assert ("calib-out/calibration.cache" in last) == bool(changed)
    assert not list((finished / "calib-out").glob(".calib-*"))
    if changed:  # minutes of work, which the next run takes up
        again = calib("--seed", "1", "--cache-only", "--precision", "int8")
        assert again.returncode in (0, 3), again.stderr


def test_reports_stand_for_the_engines_of_their_runs_in_a_comparison(calib, finished):
    other = calib("--precision", "fp16", "--out", "half")
    assert other.returncode == 0, other.stderr
    command = [*COMMAND[:3], "compare", "half", "calib-out", "--json"]
    done = subprocess.run(
        command, cwd=finished, env=environment(), capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["backend"]["name"] == "tensorrt"
    assert [row["found"] for row in document["compared"]] == ["fp16", "int8"]
    int8 = report(finished)["builds"][-1]
    assert document["builds"][1]["top1"] == int8["top1"]
    assert document["builds"][1]["agreement"] >= 97


@pytest.mark.usefixtures("memory_returns")
def test_full_disk_leaves_older_files(finished, digests):
    older = digests()
    limited = ["bash", "-c", 'trap "" XFSZ; ulimit -f 16; exec "$@"', "bash", *COMMAND, *QUICK, "--seed", "2"]
    done = subprocess.run(
        limited, cwd=finished, env=environment(), capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 1, done.stderr
    assert "could not be written" in done.stderr
    assert digests() == older
