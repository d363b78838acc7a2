"""docs/configuration.md agrees with the settings."""

import re
from dataclasses import MISSING, fields
from pathlib import Path

import click
import pytest

from calib.cli import command_line
from quant.settings.calib_toml import settings_from_options
from quant.settings.run_settings import RunSettings

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in re.findall(r"^\| `\w+` \|.*$", TEXT, re.M)]
KINDS = {"Path": "path", "str": "text", "int": "whole number", "float": "number", "bool": "true, false"}
KINDS["tuple[str, ...]"] = "list of texts"


def test_every_setting_has_its_row_in_order():
    assert [row[0].strip("` ") for row in ROWS] == [field.name for field in fields(RunSettings)]


@pytest.mark.parametrize("field", fields(RunSettings), ids=lambda field: field.name)
def test_type_and_default_are_those_of_the_settings(field):
    row = next(row for row in ROWS if row[0].strip("` ") == field.name)
    kind = str(field.type).removesuffix(" | None")
    assert row[1] == ("text" if kind.startswith("Literal") else KINDS[kind])
    assert field.default is not MISSING
    if field.default is None:
        assert not row[2].startswith("`") or field.name == "cache"
    elif isinstance(field.default, bool):
        assert row[2] == f"`{str(field.default).lower()}`"
    else:
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        assert row[2].replace('"', "") == f"`{default}`"


def test_every_setting_is_an_option_of_run():
    options = {parameter.name for parameter in command_line.get_command(None, "run").params}
    assert {field.name for field in fields(RunSettings)} <= options


def test_the_example_is_read(tmp_path, monkeypatch):
    (example,) = re.findall(r"^```toml\n(.*?)^```", TEXT, re.M | re.S)
    (tmp_path / "calib.toml").write_text(example)
    monkeypatch.chdir(tmp_path)
    settings = settings_from_options({})
    assert (settings.algo, settings.percentile, settings.max_drop) == ("percentile", 99.9, 0.5)


def test_the_metrics_of_the_examples_work(tmp_path):
    import numpy as np

    from quant.settings.user_code import load_callable

    examples = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    assert len(examples) == 2
    (tmp_path / "metrics.py").write_text("\n".join(examples))
    metric = load_callable(f"{tmp_path / 'metrics.py'}:negative_error", "metric")
    outputs, labels = {"logits": np.array([[1, 4], [2, 0]])}, np.array([3, 2])
    np.testing.assert_array_equal(metric(outputs, labels), [-1, 0])
    median = load_callable(f"{tmp_path / 'metrics.py'}:MedianError", "metric")()
    assert median.score(median.per_image(outputs, labels)) == -0.5


def all_commands(group=command_line, names=()):
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if isinstance(command, click.Group):
            yield from all_commands(command, (*names, name))
        else:
            yield (*names, name), command


@pytest.mark.parametrize(("names", "command"), [pytest.param(*c, id="-".join(c[0])) for c in all_commands()])
def test_every_command_shows_an_example_that_its_parser_takes(names, command):
    import shlex

    assert command.epilog, names
    assert command.epilog.startswith(f"Example: calib {' '.join(names)}")
    line = command.epilog.removeprefix("Example: ").split(" && ")[0]
    command.make_context(names[-1], shlex.split(line)[1 + len(names) :])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_gets_its_completion(shell):
    """Run the documented line, and check the completions that the shell gets for the tab key."""
    from click.shell_completion import get_completion_class

    assert f"_CALIB_COMPLETE={shell}_source calib" in TEXT
    complete = get_completion_class(shell)(command_line, {}, "calib", "_CALIB_COMPLETE")
    assert "_calib_completion" in complete.source_template % complete.source_vars()
    assert {item.value for item in complete.get_completions(["run", "--algo"], "m")} == {"minmax", "mse"}
    assert "sweep" in {item.value for item in complete.get_completions([], "s")}
    assert {item.value for item in complete.get_completions(["cache"], "")} == {
        "show", "check", "diff", "convert", "merge"
    }  # fmt: skip
