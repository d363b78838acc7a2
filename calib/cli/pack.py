"""`calib pack`: an image folder as one HDF5 file."""

from __future__ import annotations

from pathlib import Path

import click

from calib.cli.parts.options import parsed_size
from calib.cli.parts.paths import FILE
from calib.cli.parts.terminal import TerminalConsole, say_line


@click.command("pack", epilog="Example: calib pack imgs/ imgs.h5 --size 256x256")
@click.argument("folder", type=FILE)
@click.argument("pack", type=FILE)
@click.option("--labels", type=FILE, help="CSV with the columns file,label.")
@click.option("--classes", type=FILE, help="File with one class name per line, in order.")
@click.option("--size", metavar="HxW", help="Fit images to this size; needed when they differ in size.")
@click.option(
    "--preprocess",
    metavar="PRESET|FILE.toml",
    help="Fit images as a run with this preprocessing does (crop, stretch, letterbox); default: cover --size and crop.",
)
@click.option("--max-bad", type=float, default=0.05, show_default=True, help="Accepted share of unreadable images.")
@click.option("--quiet", is_flag=True, help="No progress and no notes.")
def command(
    folder: Path,
    pack: Path,
    labels: Path | None,
    classes: Path | None,
    size: str | None,
    preprocess: str | None,
    max_bad: float,
    quiet: bool,
) -> None:
    """Pack an image folder into one HDF5 file, which streams faster and is easier to copy.

    The images keep the pixels of their files. With --size, a run can no longer resize them in another way: give its
    --preprocess here too.
    """
    from datasets import ImageFolder, Preprocessing, write_pack

    source = ImageFolder(folder, labels=labels, classes=classes)
    console = TerminalConsole(quiet=quiet)
    height_width = parsed_size(size, "--size")
    written = 0

    def progress(done: int, total: int) -> None:
        nonlocal written
        advance(done - written)
        written = done

    with console.task("Packing", len(source)) as advance:
        fit = None if preprocess is None else Preprocessing.from_spec(preprocess)
        left_out = write_pack(source, pack, size=height_width, preprocessing=fit, progress=progress, max_bad=max_bad)
    for line in source.notes:
        console.note(line)
    for item in left_out:
        console.warn(f"{item.file} was left out: {item.reason}")
    say_line(f"{pack}: {len(source) - len(left_out)} images")
