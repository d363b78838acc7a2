"""docs/troubleshooting.md: the words of every error lead to a heading, and no row of its table is out of date."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
CATALOGUE = PAGE.partition("## Messages")[2].partition("\n## ")[0]
ANY = "expected ..."  # leads to the list of settings: good only for values of settings, options and arguments
OF_VALUES = (
    "quant/settings/", "quant/api.py", "quant/jobs/export.py", "datasets/field_checks.py", "datasets/preprocessing/",
    "datasets/sampling.py", "datasets/batches.py", "datasets/text_file.py", "datasets/guards/decoding_space.py",
    "calib/algorithms.py", "calib/calibrator.py",
)  # fmt: skip
INTERNAL = {"AttributeError", "ValueError", "OSError", "IsADirectoryError", "UsageError"}  # not ours, or click's


def anchors(text):
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows():
    """The table: words of messages (`...` stands for anything), each with the anchor it leads to."""
    found = []
    for line in CATALOGUE.splitlines():
        match = re.fullmatch(r"\| (.*) \| \[.*\]\(#(.*)\) \|", line)
        if match:
            found += [(words, match[2]) for words in re.findall(r"`([^`]+)`", match[1])]
    return found


def text_of(node):
    """A message's template: `{}` stands for what is filled in; None where it is made elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.BinOp):
        return (text_of(node.left) or "{}") + (text_of(node.right) or "{}")
    return None


@cache
def messages():
    """Templates of all errors of the project's own types, with the file and line that raises them."""
    found = {}
    for package in ("calib", "quant", "datasets"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
                    continue
                kind = getattr(node.exc.func, "id", getattr(node.exc.func, "attr", ""))
                text = text_of(node.exc.args[0])
                if kind.endswith("Error") and kind not in INTERNAL and text and text.strip("{}: ()"):
                    found[f"{path.relative_to(ROOT)}:{node.lineno}"] = text
    return found


def matches(words, message):
    """Do a row's words stand in a message, in their order and at the beginning of words?"""
    parts = [re.escape(part.strip()) for part in words.split("...") if part.strip()]
    return re.search(r"(?<!\w)" + ".*".join(parts), message, re.S) is not None


def test_the_catalogue_is_read():
    assert len(rows()) > 40
    assert len(messages()) > 300


@pytest.mark.parametrize("package", ["calib", "quant", "datasets"])
def test_every_message_leads_to_a_heading(package):
    known = [words for words, _ in rows()]
    lost = {}
    for place, message in messages().items():
        usable = known if place.startswith(OF_VALUES) else [words for words in known if words != ANY]
        if place.startswith(package) and not any(matches(words, message) for words in usable):
            lost[place] = message
    assert lost == {}


def test_every_row_leads_to_a_heading_that_is_there_and_names_a_message_that_is_raised():
    there = anchors(PAGE)
    for words, anchor in rows():
        assert anchor in there, words
        assert any(matches(words, message) for message in messages().values()), words


def test_the_symptoms_lead_to_headings_too():
    for anchor in re.findall(r"\]\(#([^)]+)\)", PAGE):
        assert anchor in anchors(PAGE), anchor
