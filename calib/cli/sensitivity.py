"""`calib sensitivity`: what INT8 costs each product alone."""

from __future__ import annotations

import sys
from typing import Any

import click

from calib.cli.parts.options import run_options
from calib.cli.parts.terminal import TerminalConsole, columns, say

_SHARED = (
    "model", "data", "eval", "labels", "classes", "preprocess", "input_size", "input", "algo", "percentile",
    "num_images", "sampling", "batch_size", "seed", "task", "no_labels", "head", "precisions", "cache", "out",
    "max_bad", "memory_limit", "allow_code", "as_json", "quiet",
)  # fmt: skip


@click.command("sensitivity", params=run_options(*_SHARED), epilog="Example: calib sensitivity --data imgs/")
def command(
    *,
    as_json: bool,
    quiet: bool,
    allow_code: bool,
    **options: Any,  # noqa: ANN401 - options hold several types
) -> None:
    """Show which products lose most in INT8: one at a time is quantized, and the outputs are held against FP32's.

    ONNX Runtime computes in exact INT8 arithmetic, on up to 256 evaluation images. Products of attention are quantized
    together, as engines fuse them. sensitivity.json and sensitivity.svg are written to --out. Settings also come from
    calib.toml; options override them.
    """
    from calib.cli.parts.task_option import settled
    from quant.settings.calib_toml import settings_from_options
    from quant.settings.command_line import opening_line

    settings = settings_from_options(settled(options), allow_code=allow_code)
    console = TerminalConsole(quiet=quiet)
    console.note(opening_line("sensitivity", settings))  # before what takes seconds to load
    from quant.jobs.recovering.sensitivity import sensitivity
    from quant.report.views.render import json_from_document
    from quant.report.views.sensitivity import text_from_sensitivity

    document = sensitivity(settings, console)
    if as_json:
        say(json_from_document(document), nl=False)
    else:
        say(text_from_sensitivity(document, settings.out, columns(sys.stdout)))
