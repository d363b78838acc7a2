"""The clients of experiment trackers, each through its own package and settings from its own environment variables.

A tracker is opened before the job, so that a client that is missing or not set up is told before hours of work, and the
tracker shows a job that failed as one that failed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from quant.errors import QuantError
from quant.report.tracking.record import Record

EXTRAS = {"mlflow": "mlflow", "wandb": "wandb"}  # the module and the extra of each


class TrackingError(QuantError):
    """A tracker's client is missing or not set up, or did not take the results."""


class Tracker(Protocol):
    """An open entry of a tracker."""

    def record(self, found: Record, folder: Path) -> None:
        """Keep the results, and the files that lie in a folder."""

    def close(self, *, failed: bool) -> None:
        """End the entry."""


class MlflowTracker:
    """An MLflow run. The server and the experiment are those of MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, job: str) -> None:
        """Start the run."""
        self._mlflow = _client("mlflow")
        self._mlflow.start_run(run_name=f"calib {job}")

    def record(self, found: Record, folder: Path) -> None:
        """Keep the results."""
        self._mlflow.log_params(dict(found.params))
        self._mlflow.log_metrics(dict(found.metrics))
        self._mlflow.set_tags(dict(found.tags))
        for name in found.files:
            self._mlflow.log_artifact(str(folder / name))

    def close(self, *, failed: bool) -> None:
        """End the run."""
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


class WandbTracker:
    """A run of Weights & Biases, in the project of WANDB_PROJECT, else calib; WANDB_MODE=offline needs no network."""

    def __init__(self, job: str) -> None:
        """Start the run."""
        wandb = _client("wandb")
        self._artifact = wandb.Artifact(f"calib-{job}", type="report")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "calib",
            job_type=job,
            settings=wandb.Settings(console="off"),  # the terminal belongs to the job
        )

    def record(self, found: Record, folder: Path) -> None:
        """Keep the results."""
        self._run.config.update({**found.params, **found.tags})
        self._run.summary.update(dict(found.metrics))
        for name in found.files:
            self._artifact.add_file(str(folder / name))
        self._run.log_artifact(self._artifact)

    def close(self, *, failed: bool) -> None:
        """End the run; what is left is sent."""
        self._run.finish(exit_code=int(failed))


TRACKERS: dict[str, type[MlflowTracker] | type[WandbTracker]] = {"mlflow": MlflowTracker, "wandb": WandbTracker}


@contextlib.contextmanager
def opened_tracker(name: str, job: str) -> Iterator[Tracker]:
    """A tracker that is open while a job runs; what fails in the block is marked as failed, and goes on.

    Args:
        name: One of `TRACKERS`.
        job: run, compare, sweep or migrate.

    Raises:
        TrackingError: The client is not installed or not set up, or does not take the results.
    """
    with _told(name, "nothing was done"):
        tracker: Tracker = TRACKERS[name](job)
    try:
        yield _Careful(tracker, name)
    except BaseException:
        with contextlib.suppress(TrackingError), _told(name, ""):  # what failed first is what is told
            tracker.close(failed=True)
        raise
    with _told(name, "the results themselves are written"):
        tracker.close(failed=False)


class _Careful:
    """A tracker whose client's errors are ours."""

    def __init__(self, tracker: Tracker, name: str) -> None:
        self._tracker, self._name = tracker, name

    def record(self, found: Record, folder: Path) -> None:
        with _told(self._name, f"the results themselves are in {folder}"):
            self._tracker.record(found, folder)

    def close(self, *, failed: bool) -> None:
        self._tracker.close(failed=failed)


@contextlib.contextmanager
def _told(name: str, state: str) -> Iterator[None]:
    """Turn what a client raises into one line, and keep what it prints off the standard output."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield
        except TrackingError:
            raise
        except Exception as error:  # whatever the client and its network libraries raise
            said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise TrackingError(f"--log {name}: {said}; {state}") from error


def _client(module: str) -> Any:  # noqa: ANN401 - a module
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise TrackingError(
            f"--log {module}: expected the package {module}, found none ({error}); "
            f"pip install 'calib-int8[{EXTRAS[module]}]', or leave --log out"
        ) from error
