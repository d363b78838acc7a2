import errno
import itertools
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.outcome import Outcome

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300  # seconds until a process that does not get anywhere fails its test


@pytest.fixture
def start_calib(start_script, request):
    """Starts a command line in its own process; its reports have charts where the test is marked `charts`."""
    plain = "" if request.node.get_closest_marker("charts") else PLAIN
    # As from a terminal: the tests may run in a background job, whose children inherit an ignored Ctrl-C.
    terminal = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    return partial(start_script, f"{terminal}\n{GATE}\n{plain}\nfrom calib.cli import main; main()")


@pytest.fixture
def start_script():
    """Starts a Python script in its own process; a process that still runs at the end of the test is killed."""
    started = []

    def start(script, *arguments, cwd, prefix=(), **options):
        python = [sys.executable, "-c", script]
        path = os.pathsep.join([*map(str, prefix), str(ROOT)])
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            [*python, *map(str, arguments)],
            cwd=cwd,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            **{**streams, **options},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def shown_on():
    """Reads all that is shown on a terminal, from its other side, until nobody has it open any more."""

    def read(controller):
        shown = b""
        while True:
            try:
                part = os.read(controller, 1 << 16)
            except OSError:  # what a terminal gives when its other end is closed
                break
            if not part:
                break
            shown += part
        os.close(controller)
        return shown

    return read


@pytest.fixture
def finish():
    """Waits for a process and returns its outcome."""

    def wait(process):
        out, err = process.communicate(timeout=PATIENCE)
        return Outcome(process.returncode, out or "", err or "")

    return wait


# In place of the module that draws; what would import it is not imported any earlier for this.
PLAIN = """
import types
charts = types.ModuleType("quant.report.views.charts")
charts.charts_from_document = lambda document: {}
sys.modules[charts.__name__] = charts
"""

# Before the process opens an image that the test names, it waits until the test lets it.
GATE = """
import os, sys
image, gate = os.environ.get("TEST_SLOW_IMAGE"), os.environ.get("TEST_GATE")
def wait_before_opening(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and os.path.abspath(arguments[0]) == image:
        if os.path.exists(gate):
            with open(gate, "rb") as pipe:
                pipe.read()
if image:
    sys.addaudithook(wait_before_opening)
"""


@pytest.fixture
def slow_image(tmp_path, monkeypatch):
    """Replaces an image by a file that processes can open only when the test lets them.

    Returns a function that waits until a process is about to open the image and returns another one, which lets it
    continue. Every opening gets a new pipe, so that two openings cannot be taken for one; after the last, none waits.
    """
    numbers = itertools.count()
    gate = tmp_path / "gate"

    def place(image, contents):
        image.write_bytes(contents)
        monkeypatch.setenv("TEST_SLOW_IMAGE", str(image.resolve()))
        monkeypatch.setenv("TEST_GATE", str(gate))

        def next_pipe():
            number = next(numbers)
            pipe, link = tmp_path / f"pipe{number}", tmp_path / f"link{number}"
            os.mkfifo(pipe)
            link.symlink_to(pipe)
            link.replace(gate)
            return pipe

        waiting = [next_pipe()]

        def opened(process):
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    descriptor = os.open(waiting[-1], os.O_WRONLY | os.O_NONBLOCK)
                    break
                except OSError as error:
                    assert error.errno == errno.ENXIO, error  # nobody waits yet
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < end
                time.sleep(0.005)
            waiting.append(next_pipe())

            def release(*, last=False):
                if last:
                    gate.unlink()
                os.close(descriptor)

            return release

        return opened

    return place
