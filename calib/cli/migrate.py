"""`calib migrate`: an old TensorRT cache to a Q/DQ model, with proof that it has the same numbers."""

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
    "model", "data", "eval", "labels", "classes", "preprocess", "input_size", "input", "batch_size", "seed", "backend",
    "metric", "task", "ignore_index", "no_labels", "max_drop", "max_metric_drop", "max_bad", "strict_int8", "dynamic",
    "workspace", "builder_level", "tactic_sources", "dla", "allow_code", "as_json", "quiet",
)  # fmt: skip
_HELPS = {
    "model": "FP32 model that the cache was made from; by default the only *.onnx in the working folder.",
    "data": "Images to compare on, all of them: a folder, a data.yaml (its val), or an HDF5 pack.",
    "eval": "The same, before --data.",
    "seed": "Seed of the bootstrap of --metric; default 0.",
    "backend": "What runs the builds; default auto: TensorRT 8.6 or 10 if it and a GPU are found.",
}


@click.command(
    "migrate",
    params=run_options(*_SHARED, **_HELPS),
    epilog="Example: calib migrate old.cache --model model.onnx --data imgs/",
)
@click.argument("cache", type=FILE)
@click.option("--out", type=FILE, default="calib-migrate", show_default=True, help="Folder for model and reports.")
@junit_option
@log_option
def command(
    *,
    cache: Path,
    as_json: bool,
    quiet: bool,
    allow_code: bool,
    junit: Path | None,
    log: str | None,
    **options: Any,  # noqa: ANN401 - options hold several types
) -> int:
    """Turn CACHE, an old TensorRT calibration cache, into a Q/DQ model for TensorRT 11, and compare old and new.

    The scales do not change. model.int8.onnx and the reports are written to --out: what became of every tensor's
    scale, and the accuracy of FP32, of the old build and of the new one on the same images. The old build is the engine
    itself on a GPU with TensorRT 8.6 or 10, and the new model has pairs where that computes in INT8, or is
    model.fp16.onnx if it does so nowhere; elsewhere it is a forecast in exact arithmetic. The exit code is 3 when the
    new build loses more than --max-drop, against FP32 or against the old one.
    """
    from calib.cli.parts.task_option import settled
    from quant.settings.calib_toml import settings_from_options

    with junit_file(junit, "calib migrate") as told:
        settings = settings_from_options(settled(options), allow_code=allow_code)
        console = TerminalConsole(quiet=quiet)
        console.note(  # before what takes seconds to load
            f"calib migrate: {cache} into {settings.model}, with the images of {settings.eval or settings.data}; "
            f"results go to {settings.out}"
        )
        from quant.jobs.migrating.migrate import migrate
        from quant.report.tracking.record import record_from_report
        from quant.report.views.pipelines.junit import cases_from_report
        from quant.report.views.render import json_from_document
        from quant.report.views.terminal.summary import summary_from_document

        with tracked(log, "migrate") as record:
            document = migrate(cache, settings, console)
            record(record_from_report(document), settings.out)
        told(cases_from_report(document))
    if as_json:
        say(json_from_document(document), nl=False)
    else:
        say(summary_from_document(document, settings.out, columns(sys.stdout)))
    exit_code: int = document["exit_code"]
    return exit_code
