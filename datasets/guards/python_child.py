"""Other Pythons that this one starts, for work that may take a whole process with it.

They import what this one does, from the same places. A terminal's Ctrl-C is for this process alone, and does not reach
them.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any

# Python puts the working folder first for a program of `-c`: a file json.py there is the user's, and stays out.
_SAME_IMPORTS = """
import sys
sys.path[:] = filter(None, sys.path)
import json
sys.path[:] = json.loads(sys.stdin.buffer.readline())
"""
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def has_python() -> bool:
    """Whether there is a Python to start: a program that was frozen into one file has none."""
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def started_python(
    program: str, *, flags: Sequence[str] = (), said: IO[Any] | int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a Python that runs a program; what it reads from its input is up to both.

    Args:
        program: Its source.
        flags: Options of Python's own.
        said: Takes what it prints, errors too.

    Raises:
        OSError: No process can be started.
    """
    places = json.dumps([entry for entry in sys.path if isinstance(entry, str)])  # Python's imports heed no others
    child = subprocess.Popen(
        [sys.executable, *flags, "-c", _SAME_IMPORTS + program],
        stdin=subprocess.PIPE,
        stdout=said,
        stderr=said,
        env={**os.environ, **_ONE_THREAD},
        start_new_session=True,
    )
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # whoever waits for its end sees how it ended
        child.stdin.write(places.encode() + b"\n")
        child.stdin.flush()
    return child
