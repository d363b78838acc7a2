"""Progress, notes and warnings on standard error."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

import click

from calib.cli.parts.one_line import one_line
from calib.interrupts import stop_if_interrupted
from calib.texts import plain_lines, plain_text, wrapped

_LONGEST_WARNING = 1000  # characters: several things may be listed


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a text of one or more lines; what comes from outside in it does nothing to the terminal."""
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = plain_lines(text).encode(encoding, "backslashreplace").decode(encoding)
    click.echo(shown, err=err, nl=nl)


def columns(stream: TextIO | None) -> int | None:
    """Columns of the terminal that a stream goes to; None of files and pipes, where a line is a line.

    A stream that was closed before the process began is None.
    """
    return shutil.get_terminal_size().columns if stream is not None and stream.isatty() else None


def say_line(text: str, *, err: bool = False) -> None:
    """The same for a text that is one line, whatever is in it; a terminal breaks it between words, not within them."""
    for part in wrapped(plain_text(text), columns(sys.stderr if err else sys.stdout)):
        say(part, err=err)


class TerminalConsole:
    """Shows a run's progress: bars only on a terminal, only warnings when quiet."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def note(self, line: str) -> None:
        """Print one line about what is being done."""
        if not self._quiet:
            say_line(line, err=True)

    def warn(self, line: str) -> None:
        """Print one line that the user should read."""
        say_line(f"warning: {one_line(line, _LONGEST_WARNING)}", err=True)

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar with images/s and the time left."""
        if self._quiet or columns(sys.stderr) is None:
            yield lambda images: stop_if_interrupted()
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            Task,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class RateColumn(ProgressColumn):
            def render(self, task: Task) -> Text:
                speed = task.finished_speed or task.speed
                return Text(f"{speed:,.0f} images/s" if speed else "")

        shown = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*shown, console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task(description, total=total)

            def advance(images: int) -> None:
                stop_if_interrupted()
                progress.update(bar, advance=images)

            yield advance
