"""`calib cache`: show, check, compare, convert and merge calibration caches."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from calib.cli.parts.paths import FILE
from calib.cli.parts.terminal import columns, say, say_line
from calib.names import ALGORITHMS, CALIBRATORS


def _reader(text: str, *others: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option that names the program for which a cache is meant."""
    return click.option("--for", "reader", type=click.Choice(("onnxruntime-tensorrt", *others)), help=text)


@click.group("cache")
def command() -> None:
    """Show, check, compare, convert and merge calibration caches."""


@command.command("show", epilog="Example: calib cache show calib-out/calibration.cache")
@click.argument("cache", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(cache: Path, as_json: bool) -> None:
    """Print the tensors of a cache, each with its scale and amax.

    CACHE is a TensorRT cache, a JSON file or a Q/DQ model (.onnx).
    """
    from calib.caches.conversion import json_from_cache, read_text_or_json
    from calib.caches.inspection import table_from_cache

    if cache.suffix.lower() == ".onnx":
        from quant.jobs.cache_convert import read_cache_file  # loads onnx, which texts do without

        read = read_cache_file(cache)
        found, notes = read.cache, read.notes
    else:
        found, notes = read_text_or_json(cache), ()
    for note in notes:
        say_line(f"warning: {note}", err=True)
    say(json_from_cache(found) if as_json else table_from_cache(found, str(cache), columns(sys.stdout)), nl=False)


@command.command("check", epilog="Example: calib cache check calib-out/calibration.cache --model model.onnx")
@click.argument("cache", type=FILE)
@click.option("--model", type=FILE, help="ONNX model that the cache should fit.")
@_reader("Program that is to read it: ONNX Runtime's TensorRT provider splits lines in another way than TensorRT.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all tensors that do not fit.")
def check(cache: Path, model: Path | None, reader: str | None, as_json: bool) -> None:
    """Check a cache's format, scales and provenance; with --model, also which tensors it lacks or should not have.

    CACHE is a TensorRT cache, a JSON file or a Q/DQ model (.onnx).
    """
    from calib.errors import CacheError
    from quant.jobs.cache_check import check_cache_file, json_from_check

    result = check_cache_file(cache, model, reader)
    if as_json:
        say(json_from_check(result), nl=False)
    for line in () if as_json else result.lines:
        say_line(line)
    if result.failure:
        raise CacheError(result.failure)


@command.command("diff", epilog="Example: calib cache diff tensorrt.cache calib-out/calibration.cache")
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(a: Path, b: Path, as_json: bool) -> None:
    """Compare two caches: the ratio of amax (B over A), worst first, and the tensors that only one of them has.

    A and B are TensorRT caches, JSON files or Q/DQ models (.onnx).
    """
    from calib.caches.difference import json_from_difference, text_from_difference
    from quant.jobs.cache_convert import diff_cache_files

    found = diff_cache_files(a, b)
    names = (str(a), str(b))
    say(json_from_difference(found) if as_json else text_from_difference(found, names, columns(sys.stdout)), nl=False)


@command.command("convert", epilog="Example: calib cache convert old.cache new.cache --tensorrt 10.3.0")
@click.argument("source", type=FILE, metavar="IN")
@click.argument("target", type=FILE, metavar="OUT")
@click.option(
    "--model",
    type=FILE,
    help="FP32 model to write the scales into, when OUT ends in .onnx; with --for, the one that OUT is for.",
)
@click.option("--tensorrt", metavar="VERSION", help="TensorRT that will read OUT: 8600, 8.6.1, 100300, 10.3.0.")
@click.option(
    "--header", type=click.Choice(tuple(CALIBRATORS)), help="Calibrator named in OUT; trtexec reads entropy2."
)
@_reader(
    "Program that will read OUT. onnxruntime-tensorrt: tensors with ':' in their names are renamed, and a model with "
    "these is written; onnxruntime: OUT is a Q/DQ model in the numbers of its own kernels on this processor.",
    "onnxruntime",
)
def convert(
    source: Path,
    target: Path,
    model: Path | None,
    tensorrt: str | None,
    header: str | None,
    reader: str | None,
) -> None:
    """Write the scales of IN to OUT: a Q/DQ model for .onnx, JSON for .json, otherwise TensorRT's text format.

    IN is a TensorRT cache, a JSON file or a Q/DQ model; the model may come from another tool. The scales do not
    change.
    """
    from quant.jobs.cache_convert import convert_cache_file

    done = convert_cache_file(source, target, model=model, tensorrt=tensorrt, header=header, reader=reader)
    for note in done.notes:
        say_line(f"warning: {note}", err=True)
    say_line(f"{target}: {len(done.cache.scales)} scales, {done.cache.header}")


@command.command(
    "merge", epilog="Example: calib cache merge shard1/calibration.h5 shard2/calibration.h5 --out all.cache"
)
@click.argument("shards", type=FILE, nargs=-1, required=True)
@click.option("--out", type=FILE, required=True, help="The cache to write; its statistics (.h5) are put beside it.")
@click.option(
    "--algo", type=click.Choice(ALGORITHMS), default="entropy", show_default=True, help="How amax is computed."
)
@click.option("--percentile", type=float, default=99.99, show_default=True, help="Per cent kept by --algo percentile.")
def merge(shards: tuple[Path, ...], out: Path, algo: str, percentile: float) -> None:
    """Merge the statistics of several shards of the images exactly, and compute one cache from them."""
    from calib.algorithms import algorithm_from_name
    from calib.caches.merge import merge_statistics_files

    done = merge_statistics_files(shards, out, algorithm_from_name(algo, percentile))
    for line in done.warnings:
        say_line(f"warning: {line}", err=True)
    provenance = "with provenance" if done.provenance else "without provenance: not every shard has it"
    say_line(f"{out}: {done.tensors} tensors from {done.images} images, {provenance}")
