import json
import shlex
from pathlib import Path

import pytest

from quant.errors import SettingsError
from quant.settings.calib_toml import settings_from_options
from quant.settings.command_line import (
    command_from_settings,
    compare_command,
    settings_from_values,
    values_from_settings,
)
from quant.settings.run_settings import RunSettings


def test_the_command_repeats_the_run():
    from calib.cli.run import command

    settings = RunSettings(
        model=Path("a b/mo'del.onnx"), data=Path("-imgs"), algo="percentile", percentile=99.5, trust_cache=True,
        cache=Path("x.cache"), max_drop=-0.5, seed=7,
    )  # fmt: skip
    words = shlex.split(command_from_settings(settings))
    assert words[:2] == ["calib", "run"]
    given = command.make_context("run", words[2:]).params
    unsettled = ("as_json", "quiet", "no_labels", "allow_code", "timings")
    options = {key: value for key, value in given.items() if key not in unsettled}
    repeated = settings_from_options(options, Path("/nowhere"))
    assert repeated == RunSettings(**{**settings.__dict__, "data": Path("./-imgs")})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"num_images": "x"}, "num_images: expected a whole number, found 'x'"),
        ({"seed": [1]}, r"seed: expected a whole number, found \[1\]"),
        ({"data": 5}, "data: expected a path in quotes, found 5"),
        ({"out": None}, "out: expected a path in quotes, found None"),
        ({"metric": {}}, "metric: expected a text in quotes"),
        ({"data": "a\0b"}, "data: expected a name, found one with a zero character"),
    ],
)
def test_settings_of_another_type_are_refused(value, message):
    with pytest.raises(SettingsError, match=message):
        settings_from_values(value, Path("/w"))


def test_a_parameter_that_is_not_used_is_left_out():
    assert "--percentile" not in command_from_settings(RunSettings(model=Path("m"), data=Path("d")))


def test_the_settings_can_be_read_back_from_the_command():
    settings = RunSettings(
        model=Path("a b/mo'del.onnx"), data=Path("-imgs"), algo="percentile", percentile=99.5, trust_cache=True,
        cache=Path("/x.cache"), max_drop=-0.5, seed=7, preprocess="p.toml", metric="m.py:f", dynamic="1:8:64",
    )  # fmt: skip
    values = json.loads(json.dumps(values_from_settings(settings)))  # as report.json holds them
    found = settings_from_values(values | {"of another version": 1}, Path("/w"))
    assert found == RunSettings(**{
        **settings.__dict__, "model": Path("/w/a b/mo'del.onnx"), "data": Path("/w/-imgs"), "out": Path("/w/calib-out"),
        "preprocess": "/w/p.toml", "metric": "/w/m.py:f",
    })  # fmt: skip
    line = compare_command(settings, Path("a"), Path("b"), taken=("data", "preprocess"))
    assert shlex.split(line)[:6] == ["calib", "compare", "a", "b", "--batch-size", "64"]


def test_the_line_of_a_run_holds_every_setting():
    settings = RunSettings(model=Path("a b/m.onnx"), data=Path("-imgs"), seed=7, trust_cache=True, dynamic="1:8:64")
    words = shlex.split(command_from_settings(settings))
    assert words[:6] == ["calib", "run", "--model", "a b/m.onnx", "--data", "./-imgs"]
    assert {"--trust-cache", "--seed", "7", "--dynamic", "1:8:64", "--out", "calib-out"} <= set(words)
    assert "--percentile" not in words  # entropy has none
