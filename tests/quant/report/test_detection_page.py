"""The report of a detector in a browser: every figure is report.json's, nothing sticks out, no chart is empty."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from quant import run
from quant.report.views import tables
from quant.settings.calib_toml import settings_from_options
from tests import detector_project
from tests.chromium import chromium_path
from tests.once import made_once
from tests.quant.report.test_page import CHARTS, VIEWS, matches, opened

pytestmark = pytest.mark.skipif(chromium_path() is None, reason="needs Chromium (Debian's package chromium)")


@pytest.fixture(scope="session")
def detected(tmp_path_factory):
    """A folder with the reports of a detector."""

    def make(folder):
        detector_project.write_project(folder / "project")
        options = {"out": folder, "backend": "onnxruntime", "algo": "entropy"}
        run(settings_from_options(options, folder / "project"))

    return made_once(tmp_path_factory, "detected", make, charts=True)


def test_every_figure_equals_report_json(page, detected):
    document = json.loads((detected / "report.json").read_text())
    shown = opened(page, detected).evaluate(
        "[...document.querySelectorAll('[data-key]')].map(e => [e.dataset.key, e.textContent])"
    )
    keys = {key for key, _ in shown}
    parts = ("builds.2.map", "detection.classes.0.ap", "detection.confidence.2.keeping", "detection.head_kept.builds.1")
    assert all(any(key.startswith(part) for key in keys) for part in parts)
    for key, text in shown:
        value = tables.value_at(document, key)
        if isinstance(value, bool | str):
            continue
        values = value if isinstance(value, list) else [value]
        texts = re.split(r" to |, ", text) if isinstance(value, list) else [text]
        assert all(matches(a, b) for a, b in zip(texts, values, strict=True)), (key, text, value)


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_nothing_sticks_out(page, detected, width, dark):
    assert opened(page, detected, width, dark).evaluate("document.documentElement.scrollWidth") == width
    out = page.evaluate(
        f"[...document.querySelectorAll('.pictures *')].filter(e => e.getBoundingClientRect().right > {width} + 0.5)"
        ".map(e => e.outerHTML.slice(0, 120))"
    )
    assert out == []
    scrolled = (
        "[...document.querySelectorAll('#builds .wide, #detection .wide, #detection-classes .wide, #confidence .wide, "
        "#head .wide')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText)"
    )
    assert page.evaluate(scrolled) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_no_chart_is_empty_or_unreadable(page, detected, width):
    charts = opened(page, detected, width).evaluate(CHARTS)
    captions = {chart["caption"] for chart in charts}
    assert captions >= {"Drop", "Precision and recall", "F1 by threshold", "Detections by score"}
    for chart in charts:
        assert chart["drawn"] > 0 and chart["texts"] > 2, chart
        assert chart["outside"] == [], chart
        assert chart["smallest"] >= 8, chart


def test_pictures_show_the_boxes_that_changed(page, detected):
    """Red where FP32 finds a square and INT8 does not, on the square's edge in the image."""
    rows = json.loads((detected / "report.json").read_text())["detection"]["changed"]
    assert rows and all(row["lost"] + row["gained"] + row["moved"] == len(row["boxes"]) for row in rows)
    shown = opened(page, detected).evaluate("[...document.querySelectorAll('.pictures img')].map(e => e.src)")
    assert len(shown) == len(rows)
    place, lost = next((i, box) for i, row in enumerate(rows) for box in row["boxes"] if box["kind"] == "lost")
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown[place].partition(",")[2]))), np.int64)
    assert drawn.shape[:2] == (64, 128)  # as large as the image
    left, top, right, bottom = (round(value) for value in lost["box"])
    edge = drawn[max(top, 0) : top + 2, left + 3 : right - 3].reshape(-1, 3).mean(axis=0)
    assert edge[0] > 150 and edge[1] < 110 and bottom > top
