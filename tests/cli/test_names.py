"""Names from outside do nothing to the terminal: no escape sequence, no mark of direction, no second line."""

import os
import pty
import unicodedata

import pytest

from calib.caches.cache import CalibrationCache
from calib.caches.conversion import json_from_cache

HOSTILE = "t\x1b]0;owned\x07\x9b31m\u202egnp"
SHOWN = r"t\x1b]0;owned\x07\x9b31m\u202egnp"


def commands_in(text):
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t"]


@pytest.fixture
def hostile(finished):
    """A project with a cache of a hostile tensor, and with an unreadable image of a hostile name."""
    (finished / "h.cache").write_text(f"TRT-8600-MinMaxCalibration\n{HOSTILE}: 3f800000\n")
    (finished / "bad.cache").write_text(f"TRT-8600-MinMaxCalibration\n{HOSTILE}: zz\n")
    (finished / "other.json").write_text(
        json_from_cache(CalibrationCache("TRT-8600-MinMaxCalibration", {HOSTILE: 1.0}))
    )
    (finished / "imgs" / "red" / f"{HOSTILE}.png").write_bytes(b"no image")
    (finished / "imgs" / "red" / os.fsdecode(b"\xff\nsecond: line.png")).write_bytes(b"no image")
    return finished


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("cache", "show", "h.cache"), 0),
        (("cache", "diff", "h.cache", "other.json"), 0),
        (("cache", "check", "h.cache"), 0),
        (("cache", "check", "h.cache", "--model", "model.onnx"), 1),
        (("cache", "show", "bad.cache"), 1),
        (("cache", "show", HOSTILE), 1),
        (("run", "--cache", "h.cache", "--trust-cache", "--algo", "minmax"), 1),
        (("run", "--algo", HOSTILE), 2),
        (("run", "--max-bad", "0.5"), 0),
        (("run", "--max-bad", "0"), 1),
    ],
)
def test_hostile_names_are_shown_as_text(calib, hostile, command, code):
    result = calib(*command, cwd=hostile)
    assert result.code == code, result.err
    assert commands_in(result.out + result.err) == []
    if "bad" not in "".join(command) and command != ("cache", "check", "h.cache"):  # that one names no tensor
        assert SHOWN in result.out + result.err or "second: line" in result.err
    assert not any(line.startswith("second: line") for line in result.err.splitlines())


def test_a_terminal_gets_no_sequence_of_a_name(start_calib, hostile, shown_on):
    controller, terminal = pty.openpty()
    process = start_calib("run", "--max-bad", "0.5", cwd=hostile, stderr=terminal, stdout=terminal)
    os.close(terminal)
    shown = shown_on(controller)
    assert process.wait() == 0
    assert b"left out" in shown
    for sequence in (b"\x1b]0;", b"\x07", "\x9b".encode(), "\u202e".encode()):
        assert sequence not in shown


def test_a_terminal_of_another_encoding_gets_what_it_can_show(start_script, finish, finished):
    script = "import sys; sys.stdout.reconfigure(encoding='ascii'); from calib.cli import main; main()"
    (finished / "ü.cache").write_text("TRT-8600-MinMaxCalibration\ntensor ü: 3f800000\n")
    result = finish(start_script(script, "cache", "show", "ü.cache", cwd=finished))
    assert result.code == 0, result.err
    assert r"tensor \xfc" in result.out
