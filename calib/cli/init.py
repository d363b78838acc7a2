"""`calib init`: a configuration from what a folder shows."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from calib.cli.parts.paths import FILE
from calib.cli.parts.terminal import TerminalConsole, columns, say, say_line


@click.command("init", epilog="Example: calib init && calib run")
@click.option("--model", type=FILE, help="ONNX model; by default the only float *.onnx in the working folder.")
@click.option("--data", type=FILE, help="Images; by default the only folder of images, data.yaml or pack there.")
@click.option("--look", "only_look", is_flag=True, help="Write nothing; say what was found.")
@click.option("--quiet", is_flag=True, help="No progress and no notes.")
def command(model: Path | None, data: Path | None, only_look: bool, quiet: bool) -> None:
    """Look at a model and its images, and write calib.toml and preprocess.toml with comments.

    The preprocessing comes from the model's metadata, its input, or a preprocessor_config.json beside it; else FP32
    answers a few labelled images after each preset. What cannot be told is asked. Nothing is overwritten.
    """
    console = TerminalConsole(quiet=quiet)
    console.note(f"calib init: looking at {Path().absolute()}")  # before what takes seconds to load
    from quant.jobs.first_look.look import look, text_from_first_look, write_first_look

    found = look(Path(), model=model, data=data, console=console)
    written = [] if only_look else write_first_look(found, Path())
    say(text_from_first_look(found, columns(sys.stdout)))
    for question in found.questions:
        say_line(f"question: {question}")
    if written:
        say(f"wrote {', '.join(map(str, written))}\nnext: calib run")
