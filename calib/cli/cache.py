"""`calib cache`: look at a calibration cache, and check it against a model."""

from __future__ import annotations

from pathlib import Path

import click

_FILE = click.Path(path_type=Path)


@click.group("cache")
def command() -> None:
    """Look at a calibration cache, or check it."""


@command.command("show", epilog="Example: calib cache show calib-out/calibration.cache")
@click.argument("cache", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(cache: Path, as_json: bool) -> None:
    """Print the tensors of a cache with scale and amax."""
    from calib.inspection import json_from_cache, text_from_cache_file

    click.echo(json_from_cache(cache) if as_json else text_from_cache_file(cache), nl=False)


@command.command("check", epilog="Example: calib cache check calib-out/calibration.cache --model model.onnx")
@click.argument("cache", type=_FILE)
@click.option("--model", type=_FILE, help="ONNX model that the cache should fit.")
def check(cache: Path, model: Path | None) -> None:
    """Check a cache: format, scales, provenance, and with --model that it covers the model."""
    from quant.cache_check import check_cache_file

    for line in check_cache_file(cache, model):
        click.echo(line)
