import contextlib
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
def start_calib(start_script):
    """Starts a command line in its own process."""
    # As from a terminal: the tests may run in a background job, whose children inherit an ignored Ctrl-C.
    terminal = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    return partial(start_script, f"{terminal}; from calib.cli import main; main()")


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
def finish():
    """Waits for a process and returns its outcome."""

    def wait(process):
        out, err = process.communicate(timeout=PATIENCE)
        return Outcome(process.returncode, out or "", err or "")

    return wait


@pytest.fixture
def slow_image(tmp_path):
    """Replaces an image by a file that gives its bytes only when the test provides them.

    Returns a function that waits until a process opens the image and returns another one, which lets it continue. Every
    opening gets a new pipe, so that two readings cannot be taken for one; after the last, it is a plain file.
    """
    numbers = itertools.count()

    def place(image, contents):
        def next_pipe():
            number = next(numbers)
            pipe, link = tmp_path / f"pipe{number}", tmp_path / f"link{number}"
            os.mkfifo(pipe)
            link.symlink_to(pipe)
            link.replace(image)
            return pipe

        waiting = [next_pipe()]

        def opened(process):
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    descriptor = os.open(waiting[-1], os.O_WRONLY | os.O_NONBLOCK)
                    break
                except OSError as error:
                    assert error.errno == errno.ENXIO, error  # nobody is reading yet
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < end
                time.sleep(0.005)
            waiting.append(next_pipe())

            def release(*, last=False):
                if last:
                    plain = tmp_path / f"plain{next(numbers)}"
                    plain.write_bytes(contents)
                    plain.replace(image)
                with contextlib.suppress(BrokenPipeError):  # the process was killed
                    os.write(descriptor, contents)
                os.close(descriptor)

            return release

        return opened

    return place
