"""`calib compare`: two models, engines or runs on the same data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from calib.cli.parts.options import run_options
from calib.cli.parts.terminal import TerminalConsole, say

_FILE = click.Path(path_type=Path)
_SHARED = (
    "data", "eval", "labels", "classes", "preprocess", "input_size", "input", "batch_size",
    "seed", "backend", "metric", "task",
    "ignore_index", "no_labels", "max_drop", "max_bad", "allow_code", "as_json", "quiet",
)  # fmt: skip


@click.command(
    "compare",
    params=run_options(*_SHARED),
    epilog="Example: calib compare model.onnx calib-out/model.int8.onnx --data imgs/",
)
@click.argument("a", type=_FILE)
@click.argument("b", type=_FILE)
@click.option("--out", type=_FILE, default="calib-compare", show_default=True, help="Folder for the reports.")
def command(
    *,
    a: Path,
    b: Path,
    as_json: bool,
    quiet: bool,
    allow_code: bool,
    **options: Any,  # noqa: ANN401 - options hold several types
) -> int:
    """Compare model B with model A on the same images, and write the report of calib run without calibrating.

    A and B are ONNX models, TensorRT engines, or reports of runs (report.json or its folder); a report stands for the
    model that its run built. All images of --eval are used, otherwise those of --data. Without either, the images that
    the reports' runs evaluated are used. If A or B is an engine, both run on TensorRT. The exit code is 3 when B loses
    more than --max-drop.
    """
    from calib.cli.parts.task_option import settled
    from quant.jobs.compare import compare_files
    from quant.report.views.render import json_from_document, summary_from_document

    document = compare_files(a, b, settled(options), TerminalConsole(quiet=quiet), allow_code=allow_code)
    say(json_from_document(document) if as_json else summary_from_document(document, options["out"]), nl=not as_json)
    exit_code: int = document["exit_code"]
    return exit_code
