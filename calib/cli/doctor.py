"""`calib doctor`: what this machine can do."""

from __future__ import annotations

import click

from calib.cli.parts.terminal import say


@click.command("doctor", epilog="Example: calib doctor")
def command() -> None:
    """Look for the driver, CUDA, TensorRT, ONNX Runtime and torch; list what is missing and what works."""
    from quant.jobs.doctor import examine, text_from_findings

    say(text_from_findings(examine()), nl=False)
