"""The next step that makes sense after a run, as a command for the working folder."""

from __future__ import annotations

import shlex
from typing import Any

from quant.settings.command_line import short_command
from quant.settings.run_settings import RunSettings

Document = dict[str, Any]


def next_step(document: Document, settings: RunSettings) -> dict[str, str] | None:
    """Why something should be done next, and the command that does it; None where nothing is left to do.

    Args:
        document: The report of a run, all its other parts filled.
        settings: Settings of the run.
    """
    found = (
        _another_preprocessing(document, settings)
        or _another_algorithm(document, settings)
        or _more_evaluated(document, settings)
        or _deploy(document, settings)
    )
    return None if found is None else {"why": found[0], "command": found[1]}


def step_after_migration(document: Document, settings: RunSettings, file: str, precision: str) -> dict[str, str] | None:
    """The same after a migration.

    Args:
        document: The report of a migration.
        settings: Settings of the migration.
        file: The new model, for a command line.
        precision: int8 or fp16.
    """
    if document["verdict"] in ("pass", "unlabelled"):
        half = precision == "fp16"
        why = "build the new model where TensorRT and the GPU are" + ("" if half else "; it holds its scales")
        command = ["calib", "build", "--model", file, *(["--precision", "fp16"] if half else [])]
        return {"why": why, "command": shlex.join(command)}
    if document["verdict"] != "fail" or settings.data is None:
        return None
    return {"why": "calibrate anew", "command": short_command("run", settings, out=RunSettings().out)}


def _another_preprocessing(document: Document, settings: RunSettings) -> tuple[str, str] | None:
    """Where FP32 is better after another preprocessing, nothing else is worth a look."""
    better = (document.get("preprocessing_trial") or {}).get("better")
    if better:
        return "run again with the preprocessing that suits FP32", short_command("run", settings, preprocess=better)
    if document["verdict"] == "invalid":
        return "look what can be told of the model and its data; nothing is written", "calib init --look"
    return None


def _another_algorithm(document: Document, settings: RunSettings) -> tuple[str, str] | None:
    if settings.precision != "int8" or document["verdict"] != "fail":
        return None
    better = document.get("better_algorithm")
    if better:
        algorithm = {"algo": better["algo"], "match_tensorrt": False}
        return f"try {better['algo']}, from the same statistics", short_command("run", settings, **algorithm)
    if settings.calibrator == "tensorrt" or settings.trust_cache:
        return None
    return "try every algorithm on the same statistics, and keep the best", short_command("sweep", settings)


def _more_evaluated(document: Document, settings: RunSettings) -> tuple[str, str] | None:
    """Where fewer calibration images do, more of them can be evaluated."""
    row, convergence = document["builds"][-1], document.get("convergence") or {}
    enough, shared = convergence.get("enough"), settings.eval is None
    if settings.precision != "int8" or row.get("enough_images") is not False or not enough or not shared:
        return None
    if document["data"]["calibration"] is None or enough >= document["data"]["calibration"]["images"]:
        return None
    return (
        f"evaluate more images, as {enough} are enough to calibrate on",
        short_command("run", settings, num_images=enough),
    )


def _deploy(document: Document, settings: RunSettings) -> tuple[str, str] | None:
    if document["verdict"] not in ("pass", "unlabelled"):
        return None
    if settings.precision != "int8":
        return "calibrate, and compare INT8 with it", short_command("run", settings, precision="int8")
    if document["chosen"] != "int8":
        if document["backend"]["name"] != "onnxruntime":
            return None
        return "INT8 is for TensorRT: see what this machine lacks for it", "calib doctor"
    gate = ("--junit", "calib.junit.xml")
    if document["verdict"] == "unlabelled":
        return None
    kept = {} if settings.trust_cache else {"cache_only": True}
    return "hold it in CI, where a larger drop fails by name", short_command("run", settings, gate, **kept)
