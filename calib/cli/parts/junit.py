"""`--junit FILE`: the outcome of a job for a CI system, also where the job fails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from calib.cli.parts.one_line import one_line
from calib.cli.parts.paths import FILE

if TYPE_CHECKING:
    from quant.report.views.pipelines.junit import Case

option = click.option(
    "--junit",
    type=FILE,
    metavar="FILE.xml",
    help="Also write the outcome as JUnit's XML, where a build that loses too much is a failed case.",
)


@contextlib.contextmanager
def junit_file(path: Path | None, suite: str) -> Iterator[Callable[[list[Case]], None]]:
    """Gives a function to call with a job's cases; an error of the job becomes a case too, and goes on.

    Args:
        path: The file; None writes nothing.
        suite: Name of the suite.
    """
    if path is None:
        yield lambda cases: None
        return
    from quant.report.views.pipelines.junit import Case, checked_junit_path, write_junit

    checked_junit_path(path)
    start = time.perf_counter()
    try:
        yield lambda cases: write_junit(path, suite, cases, time.perf_counter() - start)
    except Exception as error:
        case = Case(f"{suite} ends without an error", "error", one_line(str(error) or type(error).__name__))
        write_junit(path, suite, [case], time.perf_counter() - start)
        raise
