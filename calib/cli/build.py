"""`calib build`: engines from a model and its scales, without images."""

from __future__ import annotations

from typing import Any

import click

from calib.cli.parts.options import run_options
from calib.cli.parts.terminal import TerminalConsole, say, say_line

_SHARED = (
    "model", "cache", "precision", "precisions", "task", "head", "preprocess", "input_size", "input", "batch_size",
    "dynamic", "out", "strict_int8", "explicit", "workspace", "builder_level", "tactic_sources", "dla", "allow_code",
    "as_json", "quiet",
)  # fmt: skip
_HELPS = {
    "model": "ONNX model, FP32 or with Q/DQ pairs; by default the only *.onnx in the working folder.",
    "cache": "Scales of an FP32 model: TensorRT's text, JSON or a Q/DQ model; default calibration.cache in --out.",
    "task": "detect keeps the products of a detector's head in float, as calib run does; default auto: the metadata's.",
    "precision": "int8 (default), fp16 or fp32.",
    "preprocess": "Only for the size that a TOML file states, where the model leaves it open.",
    "out": "Folder for the engines; default calib-out.",
    "dynamic": "Sizes of the engines: of the batch, or of batch, height and width, 1:4:8,256:320:640,256:320:640.",
    "as_json": "Print the engines as JSON.",
}


@click.command(
    "build",
    params=run_options(*_SHARED, **_HELPS),
    epilog="Example: calib build --target tensorrt-rtx --compute-capability 8.6,8.9,12.0",
)
@click.option(
    "--target",
    type=click.Choice(("tensorrt", "tensorrt-rtx", "onnxruntime")),
    default="tensorrt",
    show_default=True,
    help="tensorrt: for the GPU that is here; tensorrt-rtx: for GPUs that need not be here; onnxruntime: a Q/DQ model "
    "in the numbers of ONNX Runtime's own kernels.",
)
@click.option(
    "--compute-capability", default="", metavar="LIST", help="tensorrt-rtx: of the GPUs to build for, such as 8.6,8.9."
)
@click.option(
    "--float-type",
    type=click.Choice(("fp32", "fp16")),
    help="tensorrt-rtx, INT8: type of what has no Q/DQ pair; default fp32, as calib run measures it.",
)
@click.option(
    "--reduce-range",
    type=click.Choice(("auto", "yes", "no")),
    help="onnxruntime: weights of 7 bits; default auto: where this processor's integer kernels saturate.",
)
def command(
    *,
    target: str,
    compute_capability: str,
    as_json: bool,
    quiet: bool,
    allow_code: bool,
    **options: Any,  # noqa: ANN401 - options hold several types
) -> None:
    """Build engines, or a model for ONNX Runtime, from a model and its scales.

    Nothing is run and nothing measured: calib run and calib compare do that. The scales are those of a cache or of a
    Q/DQ model. Each engine has its description beside it. Settings also come from calib.toml; options override them.
    """
    from quant.settings.build_settings import capabilities_from_text
    from quant.settings.calib_toml import build_settings_from_options

    options |= {"target": target, "capabilities": capabilities_from_text(compute_capability)}
    settings = build_settings_from_options(options, allow_code=allow_code)
    console = TerminalConsole(quiet=quiet)
    console.note(f"calib build: {settings.model} for {target}; engines go to {settings.out}")
    import json

    from quant.jobs.engines.build import build_engines

    done = build_engines(settings, console)
    if as_json:
        say(json.dumps(done.document(), indent=1))
    else:
        for file in done.files:
            say_line(str(file))
