"""The commands, each imported when it or the help is asked for."""

from __future__ import annotations

import importlib

import click

_COMMANDS = (
    "init",
    "run",
    "compare",
    "sweep",
    "sensitivity",
    "build",
    "migrate",
    "export",
    "pack",
    "cache",
    "demo",
    "doctor",
)


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
