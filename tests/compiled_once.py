"""A plugin of pytest, `-p tests.compiled_once`: what a fresh checkout lacks is compiled by one worker for all of them.

Python compiles tests, sources and packages when they are imported, and numba its loops when they are called; both leave
the result on the disk. Workers that begin together would all do the same work at the same time.
"""

import sys
from functools import wraps
from pathlib import Path

import pytest
from filelock import FileLock

TESTS = Path(__file__).resolve().parent


def fresh():
    """Whether most of the tests have not been compiled; if pytest calls its files differently, that is all of them."""
    ending = f".{sys.implementation.cache_tag}-pytest-{pytest.__version__}.pyc"
    files = list(TESTS.rglob("test_*.py"))
    there = [path for path in files if path.parent.joinpath("__pycache__", path.stem + ending).exists()]
    return len(there) < len(files) / 2


def lock(config, name):
    return FileLock(config.cache.mkdir("compiled-once") / name)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    if hasattr(session.config, "workerinput") and fresh():
        with lock(session.config, "tests"):  # the others wait for the first one, and then collect side by side
            if fresh():
                return (yield)
    return (yield)


def pytest_collection_finish(session):
    """Makes numba compile in one worker at a time: another one that needs the same then finds it on the disk."""
    if not hasattr(session.config, "workerinput"):
        return
    from numba.core.dispatcher import Dispatcher

    from calib.native.functions import NativeFunction

    alone = lock(session.config, "loops")
    for owner, name in ((Dispatcher, "compile"), (NativeFunction, "_found")):
        setattr(owner, name, _one_at_a_time(getattr(owner, name), alone))


def _one_at_a_time(method, alone):
    @wraps(method)
    def method_alone(self, *arguments):
        with alone:
            return method(self, *arguments)

    return method_alone
