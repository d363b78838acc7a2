"""`calib demo`: a small real project for trying the main job."""

from __future__ import annotations

from pathlib import Path

import click

from calib.cli.parts.paths import FILE
from calib.cli.parts.terminal import say


@click.command("demo", epilog="Example: calib demo digits && cd digits && calib run --data imgs/ --algo entropy")
@click.argument("folder", type=FILE)
@click.option(
    "--task",
    type=click.Choice(["classify", "detect"]),
    default="classify",
    show_default=True,
    help="classify: single digits; detect: scenes of digits with boxes.",
)
def command(folder: Path, task: str) -> None:
    """Write a small real project: handwritten digits, a network trained on other digits, and calib.toml."""
    from calib.sample_project import write_sample_project

    images = write_sample_project(folder, task)
    how = " --algo entropy" if task == "classify" else ""
    say(f"{folder}: model.onnx, calib.toml and {images} labelled images in imgs/")
    say(f"next: cd {folder} && calib run --data imgs/{how}")
