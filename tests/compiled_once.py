"""A plugin of pytest, `-p tests.compiled_once`: what a fresh checkout lacks is compiled by one worker for all of them.

Python compiles tests, sources and packages when they are imported, and numba its loops when they are called; both leave
the result on the disk. Workers that begin together would all do the same work at the same time.
"""

import os
import sys
import time
from functools import wraps
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

TESTS = Path(__file__).resolve().parent
FOLLOWS = pytest.StashKey[FileLock]()  # what another worker holds that compiles the tests


def compiled(path):
    """The file of a test module that pytest has compiled."""
    ending = f".{sys.implementation.cache_tag}-pytest-{pytest.__version__}.pyc"
    return path.parent / "__pycache__" / (path.stem + ending)


def fresh():
    """Whether most of the tests have not been compiled; if pytest calls its files differently, that is all of them."""
    files = list(TESTS.rglob("test_*.py"))
    return sum(compiled(path).exists() for path in files) < len(files) / 2


def lock(config, name):
    return FileLock(config.cache.mkdir("compiled-once") / name)


def is_free(held):
    """Whether nobody holds a lock."""
    try:
        with held.acquire(blocking=False):
            return True
    except Timeout:
        return False


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    config = session.config
    if not hasattr(config, "workerinput") or "PYTHONDONTWRITEBYTECODE" in os.environ or not fresh():
        return (yield)
    turn = lock(config, "tests")
    try:
        with turn.acquire(blocking=False):
            return (yield)
    except Timeout:
        config.stash[FOLLOWS] = turn
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_make_collect_report(collector):
    """Before a module is imported, wait until the worker that compiles has done so, or has ended."""
    leader = collector.config.stash.get(FOLLOWS, None)
    if leader is None or not isinstance(collector, pytest.Module):
        return
    while not compiled(collector.path).exists() and not is_free(leader):
        time.sleep(0.05)


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
