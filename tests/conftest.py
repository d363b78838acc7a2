import os
import shutil
import subprocess

import pytest
from hypothesis import settings

from tests.outcome import Outcome

# The first example compiles, and test machines are busy, so the time that an example takes means nothing here.
settings.register_profile("calib", deadline=None)
settings.load_profile("calib")


@pytest.fixture(scope="session")
def demo_master(tmp_path_factory):
    """What `calib demo` writes; tests take `demo`, a copy."""
    from calib.sample_project import write_sample_project

    folder = tmp_path_factory.mktemp("demo") / "digits"
    write_sample_project(folder)
    return folder


@pytest.fixture
def demo(demo_master, tmp_path):
    """A folder as written by `calib demo`, to change at will."""
    return shutil.copytree(demo_master, tmp_path / "digits")


@pytest.fixture
def small_disk(tmp_path):
    """Mounts an empty file system with tmpfs options. Skips where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("mounting a file system needs root's rights")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session", autouse=True)
def short_latencies():
    """Shortens latency measurement: no test needs it, and seconds in each of hundreds of runs add up to minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quant.evaluation.latency._LATENCY_SECONDS", 0.1)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_spinning():
    """Keeps threads from waiting in a loop: workers share the processors, and it would slow each other's work."""
    from quant.onnxruntime.session import OnnxRuntimeSession

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OnnxRuntimeSession.__init__.__kwdefaults__, "spin", False)
        yield


@pytest.fixture
def one_processor():
    """Leaves the test only one of the machine's processors, as taskset does."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("processors cannot be taken from a process here")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.fixture
def calib(monkeypatch, capfd):
    """Runs a command line in this process, in a folder, and returns its outcome."""
    from calib.cli import main

    def call(*arguments, cwd):
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            with pytest.raises(SystemExit) as caught:
                main([str(argument) for argument in arguments])
        return Outcome(caught.value.code, *capfd.readouterr())

    return call
