"""The command line: one module per command, which parses the options, calls one function and prints the result."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import warnings

import click

from calib.cli.shadowing import shadowing_datasets

_COMMANDS = ("run", "compare", "sweep", "export", "pack", "cache", "demo", "doctor")
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


class _LazyGroup(click.Group):
    """Imports a command's module only when the command or the help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"calib.cli.{cmd_name}").command
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="calib-int8", prog_name="calib")
def command_line() -> None:
    """INT8 calibration: images in; INT8 model, reusable calibration cache and accuracy report out.

    Exit codes: 0 done, within --max-drop; 1 failed; 2 wrong usage; 3 done, but neither INT8 nor a fallback is within
    --max-drop; 4 done, but FP32 itself is at chance, so nothing was shown; 130 interrupted.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code; an error from the library becomes one line."""
    warnings.filterwarnings("ignore", module="PIL")  # a damaged image is quarantined with its reason instead
    problem = shadowing_datasets()
    if problem is not None:
        _fail(problem)
    try:
        code = command_line.main(arguments, prog_name="calib", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("calib: interrupted; older files are untouched", err=True)
        code = EXIT_INTERRUPTED
    except KeyboardInterrupt:
        click.echo("calib: interrupted; older files are untouched", err=True)
        _leave_a_running_build()
        code = EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:
        # The reader has gone (`calib ... | head`). The interpreter must not try to flush to it on exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except _library_errors() as error:
        _fail(str(error))
    except MemoryError:
        _fail("out of memory; use a smaller --batch-size")
    except OSError as error:  # not foreseen by any package: still one line, never a traceback
        _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except Exception as error:  # noqa: BLE001 - a fault of our own: said so, on one line
        from calib.cli.one_line import unforeseen

        _fail(unforeseen(error))
    sys.exit(code if isinstance(code, int) else 0)


def _leave_a_running_build() -> None:
    """End at once if TensorRT is still building: 8.6 cannot stop a build, and a normal exit would crash in it."""
    if any(thread.name == "tensorrt-build" for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)


def _library_errors() -> tuple[type[Exception], ...]:
    """What the packages raise on purpose; imported only after something was raised."""
    from calib.errors import CalibrationError  # also the base of quant's errors
    from datasets import DatasetError

    return CalibrationError, DatasetError


def _fail(message: str) -> None:
    from calib.cli.one_line import MOST, one_line

    start = "calib: error: "
    click.echo(f"{start}{one_line(message, MOST - len(start))}", err=True)
    sys.exit(EXIT_FAILED)
