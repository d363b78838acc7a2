"""Options of `calib run` that other commands share."""

from __future__ import annotations

import copy

import click


def run_options(*names: str, **helps: str) -> list[click.Parameter]:
    """The options of `calib run` with these names, for use in another command.

    Args:
        names: Which ones.
        helps: Help texts, by option, of those that mean something else there.
    """
    from calib.cli.run import command

    known = {parameter.name: parameter for parameter in command.params}
    options = [copy.copy(known[name]) for name in names]
    for option in options:
        if option.name in helps:
            assert isinstance(option, click.Option)
            option.help = helps[option.name]
    return options


def parsed_size(text: str | None, option: str) -> tuple[int, int] | None:
    """Height and width from HxW; None stays None."""
    if text is None:
        return None
    height, separator, width = text.lower().partition("x")
    if not (separator and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise click.BadParameter(f"expected HEIGHTxWIDTH such as 256x256, found '{text}'", param_hint=option)
    return int(height), int(width)
