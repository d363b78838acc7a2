"""What commands show on terminals of 80 and of 120 columns, for a model whose tensors have long names."""

import fcntl
import importlib
import os
import pty
import struct
import termios

import onnx
import pytest

from quant.onnx_graph.tracing import with_tensors_renamed

OURS = "calib-out/calibration.cache"
LONG = "/model/encoder/stages.1/blocks.3/attention/projection/depthwise/{}/output_0_of_the_exporter"
COMMANDS = ("cache", "compare", "doctor", "init", "migrate", "run", "sensitivity", "sweep", "parts.terminal")


@pytest.fixture
def on_terminal(calib, monkeypatch):
    """Runs a command line as on a terminal of so many columns; the lines that it shows."""

    def shown(columns, *arguments, cwd):
        with monkeypatch.context() as patch:
            for module in map(importlib.import_module, (f"calib.cli.{name}" for name in COMMANDS)):
                patch.setattr(module, "columns", lambda stream: columns)
            result = calib(*arguments, cwd=cwd)
        return result.out.splitlines() + result.err.splitlines()

    return shown


@pytest.fixture
def long_names(finished):
    """The finished project, with a model whose inner tensors and nodes have names of over 80 characters."""
    proto = onnx.load(finished / "model.onnx")
    names = [name for node in proto.graph.node for name in node.output if name != "logits"]
    renamed = with_tensors_renamed(proto, {name: LONG.format(name) for name in names})
    for node in renamed.graph.node:
        node.name = LONG.format(node.op_type)
    onnx.save(renamed, finished / "long.onnx")
    lines = (finished / OURS).read_text().splitlines()
    longer = [f"{LONG.format(name) if name in names else name}: {digits}" for name, digits in map(parted, lines[1:])]
    (finished / "mine.py").write_text("def certainty(outputs, labels):\n    return outputs['logits'].max(axis=1)\n")
    (finished / "long.cache").write_text("\n".join([lines[0], *longer]) + "\n")
    return finished


def parted(line):
    name, _, digits = line.rpartition(": ")
    return name, digits


def too_long(lines, columns):
    """Lines that the terminal would break within words: not single words, nor commands, which must stay in a piece."""
    return [
        line
        for line in lines
        if len(line) > columns and len(line.split()) > 1 and not line.lstrip().startswith(("calib ", "next: calib "))
    ]


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "words",
    [
        ("doctor",),
        ("cache", "show", "long.cache"),
        ("cache", "check", "long.cache", "--model", "long.onnx"),
        ("cache", "check", "long.cache", "--model", "model.onnx"),
        ("cache", "diff", "long.cache", OURS),
        ("cache", "diff", "long.cache", "long.cache"),
        ("cache", "convert", "long.cache", "new.onnx", "--model", "long.onnx"),
        ("cache", "convert", "long.cache", "new.onnx", "--model", "model.onnx"),
        ("build", "--target", "onnxruntime", "--model", "long.onnx", "--cache", "long.cache"),
        ("init", "--look", "--model", "long.onnx"),
    ],
    ids=" ".join,
)
def test_a_line_fits_the_terminal(on_terminal, long_names, words, columns):
    lines = on_terminal(columns, *words, cwd=long_names)
    assert lines
    assert too_long(lines, columns) == []


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--model", "long.onnx", "--trust-cache", "--cache", "long.cache"),
        ("compare", "long.onnx", "calib-out/model.int8.onnx"),
        ("migrate", "long.cache", "--model", "long.onnx"),
        ("sensitivity", "--model", "long.onnx", "--out", "long"),
        ("sweep", "--model", "long.onnx", "--out", "long"),
        ("sweep", "--out", "long", "--metric", "mine.py:certainty"),
    ],
    ids=" ".join,
)
def test_results_fit_80_columns(on_terminal, long_names, words):
    lines = on_terminal(80, *words, cwd=long_names)
    assert any(line.startswith(("Build ", "Product ", "Algorithm ")) for line in lines)
    assert too_long(lines, 80) == []
    if "--metric" in words:
        assert any(line.startswith("no room for Agree %, 95 % interval") for line in lines)
        assert any(line.endswith(": see long/sweep.json") for line in lines)


@pytest.mark.parametrize("words", [("cache", "show", "long.cache"), ("cache", "diff", "long.cache", "long.cache")])
def test_no_name_is_cut(on_terminal, long_names, words):
    lines = on_terminal(80, *words, cwd=long_names)
    assert {LONG.format(name) for name in ("colours", "pooled", "flat")} <= set(lines)
    figures = [lines[lines.index(LONG.format("flat")) + 1], *(line for line in lines if line.startswith("input "))]
    assert len({len(line) for line in figures}) == 1  # right below the others


def test_a_terminal_tells_its_size(start_calib, shown_on, finished, monkeypatch):
    """A real one, with what a failing command says on standard output and on standard error."""
    monkeypatch.delenv("COLUMNS", raising=False)  # which workers of pytest-xdist have, and which decides
    (finished / "bare.cache").write_text("TRT-8600-MinMaxCalibration\nelsewhere: 3f800000\n")
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    words = ("cache", "check", "bare.cache", "--model", "model.onnx")
    process = start_calib(*words, cwd=finished, stdout=terminal, stderr=terminal)
    os.close(terminal)
    lines = shown_on(controller).decode().splitlines()
    assert process.wait() == 1
    assert "calib: error: bare.cache: does not fit model.onnx: 2 of 2" in lines
    assert lines[-1].endswith("recalibrate")
    assert max(map(len, lines)) <= 60
