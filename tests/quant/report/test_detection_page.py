"""The report of a detector in a browser: every figure is report.json's, nothing sticks out, no chart is empty."""

import json
import re

import pytest

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
        run(settings_from_options({"out": folder, "backend": "onnxruntime"}, folder / "project"))

    return made_once(tmp_path_factory, "detected", make)


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
