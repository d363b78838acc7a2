"""The report of tasks without maps or boxes, in a browser: several labels an image, and embeddings without labels."""

import json
import re

import numpy as np
import pytest
from onnx import helper

from quant import run
from quant.report.views import tables
from quant.settings.calib_toml import settings_from_options
from tests import answer_projects
from tests.chromium import chromium_path
from tests.once import made_once
from tests.quant.report.test_page import VIEWS, matches, opened

pytestmark = pytest.mark.skipif(chromium_path() is None, reason="needs Chromium (Debian's package chromium)")
COLOURS = np.random.default_rng(7).integers(20, 236, (40, 3))
LONG = "a_class_with_a_name_that_is_as_long_as_those_that_people_give"


def several_labels(folder):
    end = [helper.make_node("Sigmoid", ["z"], ["y"])]
    answer_projects.write_model(folder / "model.onnx", 30 * np.eye(3), np.full(3, -15.0), end=end)
    rows = [f"{i:03}.png," + ",".join(str(int(v > 120)) for v in colour) for i, colour in enumerate(COLOURS)]
    (folder / "tags.csv").write_text("\n".join([f"file,red,{LONG},blue", *rows]) + "\n")
    return {"labels": folder / "tags.csv"}


def embeddings(folder):
    weights = np.random.default_rng(3).normal(0, 1, (3, 16))
    end = [helper.make_node("LpNormalization", ["z"], ["y"], axis=1, p=2)]
    answer_projects.write_model(folder / "model.onnx", weights, end=end)
    return {}


@pytest.fixture(scope="session", params=[several_labels, embeddings])
def scored(request, tmp_path_factory):
    """A folder with the reports."""

    def make(folder):
        (folder / "project").mkdir(parents=True)
        answer_projects.write_images(folder / "project/imgs", COLOURS)
        options = {
            "model": folder / "project/model.onnx", "data": folder / "project/imgs", "out": folder, "num_images": 16,
            "preprocess": "unit", "backend": "onnxruntime", "algo": "percentile", "percentile": 90.0, "recover": "off",
        }  # fmt: skip
        run(settings_from_options(options | request.param(folder / "project"), folder / "project"))

    return made_once(tmp_path_factory, request.param.__name__, make, charts=True)


def test_every_figure_equals_report_json(page, scored):
    document = json.loads((scored / "report.json").read_text())
    shown = opened(page, scored).evaluate(
        "[...document.querySelectorAll('[data-key]')].map(e => [e.dataset.key, e.textContent])"
    )
    keys = {key for key, _ in shown}
    assert any(key.startswith("scores.builds.2.") for key in keys) and "scores.worst.0.value" in keys
    for key, text in shown:
        value = tables.value_at(document, key)
        if isinstance(value, bool | str):
            continue
        values = value if isinstance(value, list) else [value]
        texts = re.split(r" to |, ", text) if isinstance(value, list) else [text]
        assert all(matches(a, b) for a, b in zip(texts, values, strict=True)), (key, text, value)


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_nothing_sticks_out(page, scored, width, dark):
    assert opened(page, scored, width, dark).evaluate("document.documentElement.scrollWidth") == width
    scrolled = (
        "[...document.querySelectorAll('#builds .wide, #scores .wide')].filter(e => e.scrollWidth > e.clientWidth + 1)"
        ".map(e => e.innerText)"
    )
    assert page.evaluate(scrolled) == []
