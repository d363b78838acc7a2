"""The command line: one module per command, which parses the options, calls one function and prints the result."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calib.interrupts import Interrupts, interrupts_noted

if TYPE_CHECKING:
    from calib.cli.commands import command_line

__all__ = ["command_line", "main"]

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
_OBJECTS_MADE = 50_000  # between two looks for garbage; with Python's own 700 to 2,000, imports take a sixth longer


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute may be anything
    if name == "command_line":
        from calib.cli import commands

        return commands.command_line
    raise AttributeError(f"module 'calib.cli' has no attribute '{name}'")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code; an error from the library becomes one line."""
    if arguments is None:  # a process of its own, whose imports make many objects that stay
        gc.set_threshold(_OBJECTS_MADE)
    written: list[tuple[Path, ...]] = []
    with interrupts_noted() as interrupts:
        try:
            code = _exit_code(arguments, interrupts, written)
        except KeyboardInterrupt:
            code = _interrupted(written)
    if arguments is None:  # this process has nothing else to do, and its end is not to be disturbed
        _ignore_ctrl_c()
    sys.exit(code)


def _exit_code(arguments: list[str] | None, interrupts: Interrupts, written: list[tuple[Path, ...]]) -> int:
    """Run a command; an error of the packages becomes one line and a code.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed, whatever became of its exception: C code on its way may have dropped it,
            or turned it into an error of its own.
    """
    import warnings

    import click

    from calib.cli.commands import command_line
    from calib.cli.parts.shadowing import shadowing_datasets
    from calib.commits import commits_noted

    warnings.filterwarnings("ignore", module="PIL")  # a damaged image is quarantined with its reason instead
    problem = shadowing_datasets()
    if problem is not None:
        return _failed(problem)
    try:
        with commits_noted(written):
            code = command_line.main(arguments, prog_name="calib", standalone_mode=False)
    except click.exceptions.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        if interrupts.pressed:
            raise KeyboardInterrupt from error
        return _code_of_error(error)
    if interrupts.pressed:
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _code_of_error(error: Exception) -> int:
    """Show an error on one line.

    Raises:
        Exception: The error itself, if it is none that is foreseen.
    """
    import io

    import click

    from calib.cli.parts.terminal import say

    if isinstance(error, click.ClickException):
        shown = io.StringIO()
        error.show(shown)
        say(shown.getvalue(), err=True, nl=False)
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        # The reader has gone (`calib ... | head`). The interpreter must not try to flush to it on exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    if isinstance(error, _library_errors()):
        return _failed(str(error))
    if isinstance(error, MemoryError):
        return _failed("out of memory; use a smaller --batch-size")
    if isinstance(error, OSError):  # not foreseen by any package: still one line, never a traceback
        return _failed(f"{error.filename or 'input or output'}: {error.strerror or error}")
    from calib.cli.parts.one_line import unforeseen

    return _failed(unforeseen(error))  # a fault of our own: said so, on one line


def _interrupted(written: Sequence[tuple[Path, ...]]) -> int:
    """Say what an interrupted command has left; sets of files that were complete are kept."""
    from calib.cli.parts.terminal import say_line

    kept = ", ".join(dict.fromkeys(str(path) for paths in written for path in paths))
    said = f"{kept} complete and kept, all other older files are untouched" if kept else "older files are untouched"
    say_line(f"calib: interrupted; {said}", err=True)
    _leave_a_running_build()
    return EXIT_INTERRUPTED


def _leave_a_running_build() -> None:
    """End at once if TensorRT is still building: 8.6 cannot stop a build, and a normal exit would crash in it."""
    if any(thread.name == "tensorrt-build" for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)


def _ignore_ctrl_c() -> None:
    import signal

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _library_errors() -> tuple[type[Exception], ...]:
    """What the packages raise on purpose; imported only after something was raised."""
    from calib.errors import CalibrationError  # also the base of quant's errors
    from datasets import DatasetError

    return CalibrationError, DatasetError


def _failed(message: str) -> int:
    from calib.cli.parts.one_line import MOST, one_line
    from calib.cli.parts.terminal import say_line

    start = "calib: error: "
    say_line(f"{start}{one_line(message, MOST - len(start))}", err=True)
    return EXIT_FAILED
