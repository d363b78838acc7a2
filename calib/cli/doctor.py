"""`calib doctor`: what this machine can do."""

from __future__ import annotations

import sys

import click

from calib.cli.parts.terminal import columns, say


@click.command("doctor", epilog="Example: calib doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Look for the driver, CUDA, TensorRT, ONNX Runtime, simplejpeg and torch; list what is missing and what works."""
    from quant.jobs.doctor import examine, json_from_findings, text_from_findings

    findings = examine()
    say(json_from_findings(findings) if as_json else text_from_findings(findings, columns(sys.stdout)), nl=False)
