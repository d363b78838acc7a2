"""docs/explicit-models.md says of each form what TensorRT for RTX says today."""

import re
from pathlib import Path

import pytest
from explicit_forms.forms import forms
from explicit_forms.page import BEGIN, END, answer, with_tables

from quant.tensorrt.bindings import TensorRTError, load_tensorrt_for_rtx

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "explicit-models.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rtx():
    try:
        return load_tensorrt_for_rtx()
    except TensorRTError as error:
        pytest.skip(str(error))


def rows():
    """Form, what 8.6.0 did, what TensorRT for RTX does, and whether such models are written here."""
    table = PAGE.partition(BEGIN)[2].partition(END)[0].strip().split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_each_form_is_on_the_page_once():
    assert [row[0] for row in rows()] == [form.text for form in forms()]


@pytest.mark.parametrize("form", forms(), ids=lambda form: form.text)
def test_the_page_says_what_the_builder_says(rtx, form):
    said = next(row[2] for row in rows() if row[0] == form.text)
    found = answer(rtx, form.proto)
    assert found.split(":")[0] == said.split(":")[0]  # NVIDIA's words may change with the release
    assert re.match(r"builds$|refused: node '.+' \(.+\): .+", found)
    assert found == "builds" or not form.ours


def test_the_tables_are_replaced_and_the_rest_of_the_page_stays():
    page = f"before\n{BEGIN}\n\nold\n\n{END}\nafter\n"
    assert with_tables(page, ["one", "two"]) == f"before\n{BEGIN}\n\none\n\ntwo\n\n{END}\nafter\n"
