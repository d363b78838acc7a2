"""A plugin of pytest, `-p tests.mypy_beside`: mypy checks the types while the tests run, and counts as they do."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHECK = pytest.StashKey[subprocess.Popen]()
FOUND = pytest.StashKey[str]()


def pytest_sessionstart(session):
    if hasattr(session.config, "workerinput"):
        return  # the process that shares out the tests has it
    session.config.stash[CHECK] = subprocess.Popen(
        [sys.executable, "-m", "mypy"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def pytest_sessionfinish(session, exitstatus):
    check = session.config.stash.get(CHECK, None)
    if check is None:
        return
    if exitstatus == pytest.ExitCode.INTERRUPTED:
        check.kill()
    session.config.stash[FOUND], _ = check.communicate()
    if check.returncode and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    if FOUND in config.stash:
        terminalreporter.section("mypy")
        terminalreporter.write(config.stash[FOUND])
