"""`calib export`: PyTorch to ONNX, checked."""

from __future__ import annotations

from typing import Any

import click

from calib.cli.parts.options import parsed_size
from calib.cli.parts.paths import FILE
from calib.cli.parts.terminal import say_line


@click.command("export", epilog="Example: calib export net.py:make --weights net.pt --out model.onnx --data imgs/")
@click.argument("source", metavar="NAME|FILE.py:CALLABLE")
@click.option("--out", type=FILE, required=True, help="The ONNX file.")
@click.option(
    "--data", type=FILE, required=True, help="Real images on which ONNX Runtime must give the results of PyTorch."
)
@click.option("--weights", type=FILE, help="File with a state dict; without it, the network keeps its initial weights.")
@click.option(
    "--preprocess", default="imagenet", show_default=True, metavar="PRESET|FILE.toml", help="As for calib run."
)
@click.option("--input-size", metavar="HxW", help="Default: the preprocessing's size, else 224x224.")
@click.option("--batch", type=int, default=1, show_default=True, help="Images per batch.")
@click.option("--dynamic-batch", is_flag=True, help="Leave the batch size free.")
@click.option("--opset", type=int, default=17, show_default=True, help="ONNX operator set.")
@click.option("--num-images", type=int, default=16, show_default=True, help="Images to compare the results on.")
@click.option("--tolerance", type=float, default=1e-3, show_default=True, help="Largest accepted difference.")
def command(input_size: str | None, **options: Any) -> None:  # noqa: ANN401 - options hold several types
    """Export a PyTorch network to ONNX and compare ONNX Runtime with PyTorch on real images.

    NAME is a torchvision model such as resnet18; FILE.py:CALLABLE returns a torch.nn.Module. Nothing is downloaded.
    If the results differ by more than --tolerance, no file is left and the exit code is 1.
    """
    from quant.jobs.export import ExportSettings, export

    done = export(ExportSettings(input_size=parsed_size(input_size, "--input-size"), **options))
    shape = " x ".join(str(size or "?") for size in done.inputs)
    say_line(f"{done.path}: input {shape}, outputs {', '.join(done.outputs)}")
    say_line(
        f"largest difference between ONNX Runtime and PyTorch on {done.images} images: {done.difference:.3g} "
        f"(outputs reach {done.largest:.3g})"
    )
