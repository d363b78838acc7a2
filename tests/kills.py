"""Kills a process at each step of what it writes; for scripts in a process of their own, because it forks.

A step is a call that changes the disk. The process is ended by SIGKILL just before its n-th step, for n = 1, 2, ...,
until it finishes. After each kill, the caller looks at what is left.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("replace", "rename", "link", "unlink", "remove", "rmdir", "mkdir", "fsync", "open")


def kill_before(step):
    """Make the process kill itself just before its n-th step."""
    left = step

    def wrapped(call):
        def counted(*arguments, **options):
            nonlocal left
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return counted

    bound = getattr(pathlib, "_normal_accessor", None)  # Python 3.10's paths hold these functions themselves
    for name in STEPS:
        counted = wrapped(getattr(os, name))
        if getattr(bound, name, None) is getattr(os, name):
            setattr(bound, name, counted)
        setattr(os, name, counted)


def killed_at_each_step(work, look, most=400):
    """Do the work in children that are killed at one step after the other; `look` is called after each of them.

    Args:
        work: What to do.
        look: Called with the number of the step; restores what the next child starts from.
        most: A child that was not killed after so many steps is an error.

    Returns:
        The number of kills.
    """
    for step in range(1, most):
        child = os.fork()
        if child == 0:
            kill_before(step)
            try:
                work()
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        look(step)
        if os.WIFEXITED(status):
            return step - 1
    raise AssertionError(f"not done after {most} steps")


def run_script(script, *arguments):
    """Run a script of a test in a process of its own and return what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
