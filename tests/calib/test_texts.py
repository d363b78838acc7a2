import json

import pytest

from calib.texts import plain_lines, plain_text, table_of_names, whole_characters, wrapped


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


ROWS = [("short", ("1", "22.5")), ("a/name/of/twenty-five/chars", ("333", "4"))]


def test_a_table_of_names_has_a_column_for_them_where_there_is_room():
    assert table_of_names(("tensor", "n", "amax"), ROWS, None) == [
        "tensor                         n  amax",
        "short                          1  22.5",
        "a/name/of/twenty-five/chars  333     4",
    ]


def test_a_name_that_leaves_no_room_has_a_line_of_its_own_above_its_figures():
    assert table_of_names(("tensor", "n", "amax"), ROWS, 24) == [
        "tensor           n  amax",
        "short            1  22.5",
        "a/name/of/twenty-five/chars",
        "               333     4",
    ]


def test_lines_after_the_first_go_on_below_their_column():
    assert wrapped("ok  GPU  one two three four five", 24, 9) == ["ok  GPU  one two three", "         four five"]
