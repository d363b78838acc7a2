"""`calib compare`: two models on the same data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from calib.cli.options import run_options

_FILE = click.Path(path_type=Path)
_SHARED = (
    "data", "eval", "labels", "classes", "preprocess", "batch_size", "seed", "metric", "max_drop", "max_bad",
    "as_json", "quiet",
)  # fmt: skip


@click.command(
    "compare",
    params=run_options(*_SHARED),
    epilog="Example: calib compare model.onnx calib-out/model.int8.onnx --data imgs/",
)
@click.argument("a", type=_FILE)
@click.argument("b", type=_FILE)
@click.option("--out", type=_FILE, default="calib-compare", show_default=True, help="Folder for the reports.")
def command(*, a: Path, b: Path, as_json: bool, quiet: bool, **options: Any) -> int:  # noqa: ANN401 - several types
    """Compare model B with model A on the same images: the report of calib run, without calibrating.

    A and B are ONNX models, or report.json files of runs, which stand for the models that those built. All images of
    --eval, else of --data, are used. Exit code 3 when B loses more than --max-drop.
    """
    from calib.cli.console import TerminalConsole
    from quant.model_comparison import compare_files
    from quant.report.render import json_from_document, summary_from_document
    from quant.settings import settings_from_options

    # Neither A nor B is the model of calib.toml; data and preprocessing are.
    settings = settings_from_options({**options, "model": a})
    document = compare_files(a, b, settings, TerminalConsole(quiet=quiet))
    click.echo(
        json_from_document(document) if as_json else summary_from_document(document, settings.out), nl=not as_json
    )
    exit_code: int = document["exit_code"]
    return exit_code
