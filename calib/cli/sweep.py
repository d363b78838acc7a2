"""`calib sweep`: all algorithms side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from calib.cli.parts.junit import junit_file
from calib.cli.parts.junit import option as junit_option
from calib.cli.parts.options import run_options
from calib.cli.parts.terminal import TerminalConsole, columns, say
from calib.cli.parts.tracking import option as log_option
from calib.cli.parts.tracking import tracked

_SHARED = (
    "model", "data", "eval", "labels", "classes", "preprocess", "input_size", "input", "num_images", "sampling",
    "batch_size", "seed", "backend", "collector", "workers", "ray", "metric", "task", "ignore_index",
    "no_labels", "head", "precisions", "out", "max_bad", "memory_limit", "allow_code", "as_json", "quiet",
)  # fmt: skip
_BACKEND = "What runs the models; default auto: ONNX Runtime. tensorrt: an engine is built for each choice."


@click.command(
    "sweep", params=run_options(*_SHARED, backend=_BACKEND), epilog="Example: calib sweep --data imgs/ --per-tensor"
)
@click.option(
    "--per-tensor",
    is_flag=True,
    help="Also try other algorithms on single tensors, and keep what helps on calibration images beyond chance.",
)
@junit_option
@log_option
def command(
    *,
    as_json: bool,
    quiet: bool,
    allow_code: bool,
    per_tensor: bool,
    junit: Path | None,
    log: str | None,
    **options: Any,  # noqa: ANN401 - options hold several types
) -> None:
    """Try every algorithm and three percentiles on the same statistics and images; keep the best.

    The smallest drop wins (in --metric, if it is given); ties go to the larger SQNR. calibration.cache,
    model.int8.onnx, sweep.json and sweep.svg are written to --out. ONNX Runtime runs the models; with --backend
    tensorrt an engine is built for each choice. Settings also come from calib.toml; options override them.
    """
    from calib.cli.parts.task_option import settled
    from quant.settings.calib_toml import settings_from_options
    from quant.settings.command_line import opening_line

    with junit_file(junit, "calib sweep") as told:
        settings = settings_from_options(settled(options), allow_code=allow_code)
        console = TerminalConsole(quiet=quiet)
        console.note(opening_line("sweep", settings))  # before what takes seconds to load
        from quant.jobs.sweep import sweep
        from quant.report.tracking.record import record_from_sweep
        from quant.report.views.pipelines.junit import cases_from_sweep
        from quant.report.views.render import json_from_document
        from quant.report.views.sweep import text_from_sweep

        with tracked(log, "sweep") as record:
            document = sweep(settings, console, per_tensor=per_tensor)
            record(record_from_sweep(document), settings.out)
        told(cases_from_sweep(document, settings.max_drop))
    if as_json:
        say(json_from_document(document), nl=False)
    else:
        say(text_from_sweep(document, settings.out, columns(sys.stdout)))
