"""Every error is one line of bounded length, those that nobody foresaw too."""

import pytest
from onnx import helper

from calib.cli.parts.one_line import MOST, one_line, unforeseen


def test_a_short_message_stays_and_line_breaks_go():
    assert one_line("a: expected b,\n   found c") == "a: expected b, found c"


@pytest.mark.parametrize("size", [501, 5000, 3_000_000])
def test_of_a_long_message_the_beginning_and_the_end_stay(size):
    message = f"model.onnx: found '{'x' * size}'; export the model again"
    told = one_line(message)
    assert len(told) <= MOST
    assert told.startswith("model.onnx: found 'xxx")
    assert " ... xxx" in told
    assert told.endswith("'; export the model again")


def test_a_name_of_100_000_characters_gives_a_short_error(calib, finished, write_model):
    name = "n" * 100_000
    odd = helper.make_node("Frobnicate", ["input"], ["pixels"], name=name, domain=name)
    write_model(finished / "model.onnx", before=[odd])
    result = calib("run", "--quiet", cwd=finished)
    assert result.code == 1
    assert len(result.error) <= MOST
    assert result.error.startswith("calib: error: model.onnx: ")


def test_an_error_that_nobody_foresaw_is_a_line_that_says_so(calib, colours, monkeypatch):
    def broken(*_, **__):
        raise KeyError("x" * 1000)

    monkeypatch.setattr("quant.jobs.run.open_data", broken)
    result = calib("run", cwd=colours)
    assert result.code == 1
    assert result.error.startswith("calib: error: unforeseen KeyError in test_error_lines.py:")
    assert result.error.endswith("please report it with what CALIB_TRACEBACK=1 shows")
    assert len(result.error) <= MOST


def test_a_user_may_ask_for_the_traceback(monkeypatch):
    monkeypatch.setenv("CALIB_TRACEBACK", "1")
    with pytest.raises(KeyError):
        unforeseen(KeyError("x"))
