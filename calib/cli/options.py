"""Options that several commands share: they are those of `calib run`."""

from __future__ import annotations

import click


def run_options(*names: str) -> list[click.Parameter]:
    """The options of `calib run` of these names, for another command to take."""
    from calib.cli.run import command

    known = {parameter.name: parameter for parameter in command.params}
    return [known[name] for name in names]
