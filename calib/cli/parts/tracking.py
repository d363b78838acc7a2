"""`--log`: a job's settings, figures and report in an experiment tracker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from quant.report.tracking.record import Record

option = click.option(
    "--log",
    type=click.Choice(("mlflow", "wandb")),
    help="Also send settings, figures and the report to MLflow or Weights & Biases, set up by their own variables.",
)


@contextlib.contextmanager
def tracked(name: str | None, job: str) -> Iterator[Callable[[Record, Path], None]]:
    """Gives a function to call with a job's results and their folder; the tracker is open until then.

    Args:
        name: mlflow, wandb, or None for no tracker.
        job: Name of the command.
    """
    if name is None:
        yield lambda found, folder: None
        return
    from quant.report.tracking.clients import opened_tracker

    with opened_tracker(name, job) as tracker:
        yield tracker.record
