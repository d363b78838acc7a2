"""The README's examples work as written."""

import re
import shlex
from pathlib import Path

import click
import onnx
import pytest

from calib.caches.cache import read_cache
from calib.cli import command_line

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands():
    lines = [line for block in blocks("") for line in block.splitlines()]
    inline = re.findall(r"`(calib [^`]+)`", README)
    found = [re.sub(r"\s+#.*", "", line).strip() for line in [*lines, *inline]]
    return sorted({line for line in found if line.startswith("calib ")})


def test_the_python_example_runs_as_written_in_a_demo_project(demo, monkeypatch):
    example, _ = blocks("python")
    monkeypatch.chdir(demo)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert read_cache(demo / "calibration.cache").algo == "entropy"
    assert len([line for line in example.splitlines() if line]) <= 10
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(demo / "model.int8.onnx").graph.node)
    assert names["report"]["data"]["evaluation"]["images"] == 899 - 512
    assert names["report"]["verdict"] == "pass"
    assert (demo / "compared" / "report.html").is_file()


def test_the_example_with_arrays_and_a_loader_runs_as_written(demo, monkeypatch):
    pytest.importorskip("torch")
    _, example = blocks("python")
    monkeypatch.chdir(demo)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert len([line for line in example.splitlines() if line]) <= 10
    assert len(names["int8"].images) == 64
    arrays, loader = (onnx.load(demo / name) for name in ("from-arrays.onnx", "from-loader.onnx"))
    for model in (arrays, loader):
        assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def test_the_readme_shows_commands():
    assert "calib run --data imgs/ --algo entropy" in commands()
    assert len(commands()) >= 3


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_readme_is_accepted_by_the_parser(line):
    command, arguments = command_line, shlex.split(line)[1:]
    context = click.Context(command)
    while isinstance(command, click.Group):
        name = arguments.pop(0)
        command = command.get_command(context, name)
        assert command is not None, f"no such command: {name}"
    command.make_context(command.name, arguments)  # parses without running anything


def test_the_toml_examples_are_read(demo, monkeypatch):
    from datasets import Preprocessing
    from quant.settings.calib_toml import settings_from_options

    settings, preprocessing = blocks("toml")
    (demo / "calib.toml").write_text(settings, encoding="utf-8")
    (demo / "preprocess.toml").write_text(preprocessing, encoding="utf-8")
    monkeypatch.chdir(demo)
    found = settings_from_options({})
    assert (found.algo, found.num_images, found.max_drop) == ("entropy", 512, 1.0)
    assert Preprocessing.from_spec(found.preprocess).resize == "stretch"


def test_the_exit_codes_are_those_of_the_help():
    table = re.findall(r"^\| (\d+) \| ", README, re.MULTILINE)
    assert table == ["0", "1", "2", "3", "4", "130"]
    assert all(re.search(rf"\b{code} ", command_line.help) for code in table)
