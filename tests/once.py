"""What takes seconds to make, and is only read or copied, is made by one worker for all of them."""

import os
import shutil
from contextlib import contextmanager, nullcontext

import pytest
from filelock import FileLock


@contextmanager
def plain_reports():
    """Leaves charts out of the reports that are made in this process meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quant.report.views.render.charts_from_document", lambda document: {})
        yield


def made_once(tmp_path_factory, name, make, *, charts=False):
    """A folder that `make` fills where no other worker of this session has; it is given the folder, not yet there.

    Tests must not change it: others read it at the same time. Reports in it have charts only with `charts`.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of the session, which the workers share
    shared = base / "once"
    shared.mkdir(exist_ok=True)
    folder, done = shared / name, shared / f"{name}.done"
    with FileLock(shared / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a worker left that could not make it
            with nullcontext() if charts else plain_reports():
                make(folder)
            done.touch()
    return folder
