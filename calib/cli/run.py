"""`calib run`: the main job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from calib.cli.parts.junit import junit_file
from calib.cli.parts.junit import option as junit_option
from calib.cli.parts.paths import FILE
from calib.cli.parts.terminal import TerminalConsole, columns, say
from calib.cli.parts.tracking import option as log_option
from calib.cli.parts.tracking import tracked
from quant.settings.choices import CHOICES


@click.command("run", epilog="Example: calib run --data imgs/ --algo entropy")
@click.option("--model", type=FILE, help="ONNX model; by default the only *.onnx in the working folder.")
@click.option(
    "--data",
    type=FILE,
    help="Calibration images: a folder (flat, class-per-folder, train/ and val/), a data.yaml, or an HDF5 pack.",
)
@click.option("--eval", type=FILE, help="Evaluation images; default: those of --data not used for calibration.")
@click.option(
    "--labels",
    type=FILE,
    help="Labels of the evaluated images: a table of images and classes or values (CSV, TSV, val.txt), a COCO JSON, or"
    " a folder of YOLO's texts or of masks.",
)
@click.option(
    "--task",
    type=click.Choice(CHOICES["task"]),
    help="What the model is for; default auto: found from labels, outputs and the model's metadata, and said.",
)
@click.option("--no-labels", is_flag=True, help="Ignore what the folders' names say; the same as --task none.")
@click.option("--ignore-index", type=int, help="Segmentation: a number in masks that is no class, besides 255.")
@click.option(
    "--classes", type=FILE, help="File with one class name per line, in the model's order, such as synset_words.txt."
)
@click.option(
    "--preprocess",
    metavar="PRESET|FILE.toml|FILE.py:CALLABLE",
    help="imagenet, imagenet-tf, unit, yolo, cifar10, raw, a TOML file, or a function of your own; default auto: yolo"
    " for detectors, else imagenet (docs/preprocessing.md).",
)
@click.option("--input-size", metavar="HxW", help="Size of the images, for a model that leaves it open: 640x640.")
@click.option(
    "--input",
    metavar="NAME=VALUE",
    multiple=True,
    default=None,
    callback=lambda _context, _parameter, texts: texts or None,
    help="An input that is the same for every image, beside that of the images: orig_size=[640,640].",
)
@click.option(
    "--algo",
    type=click.Choice(CHOICES["algo"]),
    help="How amax is computed; default auto: minmax for detectors, else entropy.",
)
@click.option("--percentile", type=float, help="Per cent kept by --algo percentile; default 99.99.")
@click.option(
    "--match-tensorrt",
    is_flag=True,
    default=None,
    help="With --algo entropy: TensorRT's exact answers, which depend on the first batch.",
)
@click.option(
    "--num-images",
    type=int,
    help="Calibration images; default 512, of fewer than 683 three quarters: the others are evaluated.",
)
@click.option(
    "--sampling",
    type=click.Choice(CHOICES["sampling"]),
    help="random: a seeded sample, by class if labels are known (default); first: the first in name order.",
)
@click.option("--batch-size", type=int, help="Images per batch; default 64.")
@click.option("--seed", type=int, help="Seed of the sample; default 0.")
@click.option(
    "--backend",
    type=click.Choice(CHOICES["backend"]),
    help="What runs the model; default auto: TensorRT if it and a GPU are found.",
)
@click.option(
    "--calibrator",
    type=click.Choice(CHOICES["calibrator"]),
    help="toolkit: the toolkit's own statistics (default); tensorrt: TensorRT calibrates by itself (8.6 and 10).",
)
@click.option(
    "--collector",
    type=click.Choice(CHOICES["collector"]),
    help="What the toolkit's statistics are made on; default auto: the CPU or the GPU, whichever takes less time.",
)
@click.option("--workers", type=int, metavar="N", help="Make the statistics with N workers on Ray (extra ray).")
@click.option("--ray", metavar="ADDRESS", help="Ray cluster to use; default: this machine alone.")
@click.option(
    "--precision",
    type=click.Choice(CHOICES["precision"]),
    help="int8 (default, with FP16 and FP32 as baselines and fallbacks), or only fp16 or fp32.",
)
@click.option("--cache", type=FILE, help="Calibration cache; default calibration.cache in --out.")
@click.option(
    "--cache-only",
    is_flag=True,
    default=None,
    help="Stop if the cache does not fit, including its algorithm; never write it.",
)
@click.option("--trust-cache", is_flag=True, default=None, help="Use a cache without provenance, after a check.")
@click.option("--out", type=FILE, help="Folder for all results; default calib-out.")
@click.option(
    "--max-drop",
    type=float,
    help="Largest accepted drop: points of top-1 or mAP, or per cent of --metric; default 1.0.",
)
@click.option(
    "--max-metric-drop", type=float, help="Largest accepted drop of --metric, in its own unit; instead of --max-drop."
)
@click.option("--max-bad", type=float, help="Largest accepted share of unreadable images, 0..1; default 0.05.")
@click.option(
    "--memory-limit",
    type=int,
    help="MB of activations and counts while calibrating, and of images held for later builds; default 1024.",
)
@click.option("--strict-int8", is_flag=True, default=None, help="TensorRT: no FP16 kernels in the INT8 engine.")
@click.option("--explicit", is_flag=True, default=None, help="TensorRT: INT8 as Q/DQ in the model; always on for 11.")
@click.option(
    "--dynamic", metavar="MIN:OPT:MAX", help="TensorRT: batch sizes of the engines; default: only --batch-size."
)
@click.option("--workspace", type=int, metavar="MIB", help="TensorRT: memory that kernels may use; default: all.")
@click.option("--builder-level", type=click.IntRange(0, 5), help="TensorRT: effort of a build; default TensorRT's own.")
@click.option("--tactic-sources", metavar="LIST", help="TensorRT: comma-separated names; default: all that work here.")
@click.option("--dla", type=int, metavar="CORE", help="TensorRT: build for this DLA core, with the GPU for the rest.")
@click.option(
    "--metric",
    metavar="FILE.py:CALLABLE",
    help="A metric of your own: callable(outputs, labels) returns one score per image, higher is better.",
)
@click.option(
    "--head",
    type=click.Choice(CHOICES["head"]),
    help="Detection: float (default) keeps the last products before the outputs in float; int8 quantizes them too.",
)
@click.option(
    "--recover",
    metavar="auto|off|STEPS",
    help="Where INT8 loses too much: auto (default) takes all steps as needed; or some of equalize,ranges,bias,weights,"
    "float.",
)
@click.option(
    "--precisions",
    type=FILE,
    help="TOML file that says which products stay float in INT8, such as the precision.toml of an earlier run.",
)
@click.option(
    "--allow-code",
    is_flag=True,
    help="Do what only calib.toml or a report asks for: execute its metric or function, write outside of its folder.",
)
@junit_option
@log_option
@click.option("--timings", is_flag=True, help="Say where the time went, by stage; report.json has it in any case.")
@click.option("--json", "as_json", is_flag=True, help="Print only the report's JSON.")
@click.option("--quiet", is_flag=True, help="No progress and no notes; warnings are still shown.")
def command(
    *,
    as_json: bool,
    quiet: bool,
    allow_code: bool,
    junit: Path | None,
    timings: bool,
    log: str | None,
    **options: Any,  # noqa: ANN401 - options hold several types
) -> int:
    """Calibrate, build, compare and report: the main job.

    Settings also come from calib.toml in the working folder; options override them.
    """
    from calib.cli.parts.task_option import settled
    from quant.settings.calib_toml import settings_from_options
    from quant.settings.command_line import opening_line

    with junit_file(junit, "calib run") as told:
        settings = settings_from_options(settled(options), allow_code=allow_code)
        console = TerminalConsole(quiet=quiet)
        console.note(opening_line("run", settings))  # before what takes seconds to load
        from quant.jobs.run import run
        from quant.report.tracking.record import record_from_report
        from quant.report.views.pipelines.junit import cases_from_report
        from quant.report.views.render import json_from_document
        from quant.report.views.terminal.summary import summary_from_document, text_from_timings

        with tracked(log, "run") as record:
            document = run(settings, console)
            record(record_from_report(document), settings.out)
        told(cases_from_report(document))
    if as_json:
        say(json_from_document(document), nl=False)
    else:
        say(summary_from_document(document, settings.out, columns(sys.stdout)))
        if timings:
            say(text_from_timings(document))
    exit_code: int = document["exit_code"]
    return exit_code
