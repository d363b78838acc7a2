import json

import pytest

from calib.texts import plain_lines, plain_text, whole_characters


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("relu_1/Conv: 0", "relu_1/Conv: 0"),
        ("Größe 日本語 العربية 👍🏽", "Größe 日本語 العربية 👍🏽"),
        ("👩\u200d🔬", "👩\u200d🔬"),  # joined by a character that is not seen
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\u202egnp.exe\u202c", r"\u202egnp.exe\u202c"),
        ("a\u2066b\u2069", r"a\u2066b\u2069"),
        ("a\u200bb\ufeff", r"a\u200bb\ufeff"),
        ("line\u2028line\x85", r"line\u2028line\x85"),
        ("half \udcff", r"half \udcff"),
        ("\x00\x7f", r"\x00\x7f"),
    ],
)
def test_what_is_a_command_or_unseen_is_shown_as_its_escape(text, shown):
    assert plain_text(text) == shown


def test_line_breaks_and_tabs_that_are_meant_stay():
    assert plain_lines("a\tb\nc\x1b\r") == "a\tb\nc\\x1b\\r"


def test_values_without_halves_of_characters_can_be_written():
    value = {"a\udcff": ["\ud800", ("ü", 5, None)], "b": 1.5}
    whole = whole_characters(value)
    assert whole == {"a\\udcff": ["\\ud800", ["ü", 5, None]], "b": 1.5}
    json.dumps(whole, ensure_ascii=False).encode()
