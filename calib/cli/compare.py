"""`calib compare`: two models, engines or runs on the same data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from calib.cli.parts.junit import junit_file
from calib.cli.parts.junit import option as junit_option
from calib.cli.parts.options import run_options
from calib.cli.parts.paths import FILE
from calib.cli.parts.terminal import TerminalConsole, columns, say
from calib.cli.parts.tracking import option as log_option
from calib.cli.parts.tracking import tracked

_SHARED = (
    "data", "eval", "labels", "classes", "preprocess", "input_size", "input", "batch_size", "seed", "backend", "metric",
    "task", "ignore_index", "no_labels", "max_drop", "max_metric_drop", "max_bad", "allow_code", "as_json", "quiet",
)  # fmt: skip
_HELPS = {
    "data": "Images to compare on: a folder, a data.yaml (its val), or an HDF5 pack; default: those of the reports.",
    "eval": "The same, before --data.",
    "seed": "Seed of the bootstrap of --metric; default 0.",
    "backend": "What runs both; default auto: ONNX Runtime, and TensorRT where one is an engine.",
}


@click.command(
    "compare",
    params=run_options(*_SHARED, **_HELPS),
    epilog="Example: calib compare model.onnx calib-out/model.int8.onnx --data imgs/",
)
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--out", type=FILE, default="calib-compare", show_default=True, help="Folder for the reports.")
@junit_option
@log_option
def command(
    *,
    a: Path,
    b: Path,
    as_json: bool,
    quiet: bool,
    allow_code: bool,
    junit: Path | None,
    log: str | None,
    **options: Any,  # noqa: ANN401 - options hold several types
) -> int:
    """Compare model B with model A on the same images, and write the report of calib run without calibrating.

    A and B are ONNX models, TensorRT engines, or reports of runs and sweeps (report.json, sweep.json or their folder);
    a report stands for the model that was built. All images of --eval are used, otherwise those of --data. Without
    either, the images that the reports' runs evaluated are used. If A or B is an engine, both run on TensorRT. The exit
    code is 3 when B loses more than --max-drop.
    """
    from calib.cli.parts.task_option import settled

    with junit_file(junit, "calib compare") as told:
        console = TerminalConsole(quiet=quiet)
        console.note(f"calib compare: {b} against {a}")  # before what takes seconds to load
        from quant.jobs.compare import compare_files
        from quant.report.tracking.record import record_from_report
        from quant.report.views.pipelines.junit import cases_from_report
        from quant.report.views.render import json_from_document
        from quant.report.views.terminal.summary import summary_from_document

        with tracked(log, "compare") as record:
            document = compare_files(a, b, settled(options), console, allow_code=allow_code)
            record(record_from_report(document), options["out"])
        told(cases_from_report(document))
    if as_json:
        say(json_from_document(document), nl=False)
    else:
        say(summary_from_document(document, options["out"], columns(sys.stdout)))
    exit_code: int = document["exit_code"]
    return exit_code
