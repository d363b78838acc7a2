"""`calib doctor`: what this machine can do."""

from __future__ import annotations

import click


@click.command("doctor", epilog="Example: calib doctor")
def command() -> None:
    """Driver, CUDA, TensorRT, ONNX Runtime, torch: what is found, what is missing, which paths are open."""
    from quant.jobs.doctor import examine, text_from_findings

    click.echo(text_from_findings(examine()), nl=False)
