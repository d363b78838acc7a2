"""`precision.toml`: read, matched, written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.errors import SettingsError
from quant.settings.precision_file import FloatRule, read_precision_file, text_from_rules

PRODUCTS = ["/head/Conv", "/head/Conv_1", "/blocks.0/attn/MatMul", "/blocks.1/attn/MatMul", "conv[1]", "conv1"]


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "precision.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def rule(*nodes):
    return text_from_rules([FloatRule(nodes, "because")])


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (["/head/Conv"], {"/head/Conv"}),
        (["/head/*"], {"/head/Conv", "/head/Conv_1"}),
        (["/blocks.?/attn/*"], {"/blocks.0/attn/MatMul", "/blocks.1/attn/MatMul"}),
        (["conv[1]"], {"conv[1]"}),  # a name stands for itself, whatever it would be as a pattern
        (["conv[12]", "/head/Conv"], {"conv1", "/head/Conv"}),
    ],
)
def test_names_and_patterns_stand_for_products(written, nodes, expected):
    assert read_precision_file(written(rule(*nodes))).float_nodes(PRODUCTS) == expected


def test_a_pattern_that_stands_for_nothing_is_an_error_that_names_what_is_near(written):
    with pytest.raises(SettingsError, match=r"float 1: no product is called '/heads/Conv'; near it are '/head/Conv'"):
        read_precision_file(written(rule("/heads/Conv"))).float_nodes(PRODUCTS)
    with pytest.raises(SettingsError, match="the model has none"):
        read_precision_file(written(rule("a"))).float_nodes([])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("float = 3", r"float: expected \[\[float\]\] with nodes and why, found 3"),
        ("[[int8]]\nnodes = ['a']", r"expected \[\[float\]\] only, found 'int8'"),
        ("[[float]]\nwhy = 'x'", "float 1: nodes: expected a list of names or patterns, found None"),
        ("[[float]]\nnodes = []", "nodes: expected a list of names or patterns, found"),
        ("[[float]]\nnodes = [1]", "nodes: expected a list of names or patterns, found"),
        ("[[float]]\nnodes = ['a']\nwhy = 1", "why: expected a text in quotes, found 1"),
        ("[[float]]\nnodes = ['a']\nprecision = 'fp16'", "expected nodes and why, found 'precision'"),
        ("float = [1]", "float 1: expected a table with nodes and why, found 1"),
        ("[[float]", "not valid TOML"),
        (b"\xff", r"is not UTF-8 text \(byte 0\); save it as UTF-8"),
        ("a = " + "[" * 5000, "not valid TOML"),
    ],
)
def test_another_content_is_an_error_in_one_line(written, text, said):
    with pytest.raises(SettingsError, match=said) as caught:
        read_precision_file(written(text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_an_editor_s_byte_order_mark_is_no_part_of_the_text(written):
    assert read_precision_file(written(b"\xef\xbb\xbf" + rule("a").encode())).float_nodes(["a"]) == {"a"}


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.toml: cannot be read: No such file"):
        read_precision_file(tmp_path / "none.toml")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.builds(FloatRule, st.lists(texts.filter(bool), min_size=1, max_size=3).map(tuple), texts)))
def test_what_is_written_is_read_again(tmp_path_factory, rules):
    path = tmp_path_factory.mktemp("precisions") / "precision.toml"
    path.write_text(text_from_rules(rules), encoding="utf-8")
    assert read_precision_file(path).rules == tuple(rules)
