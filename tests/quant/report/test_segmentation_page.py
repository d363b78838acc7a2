"""The report of a network that segments, in a browser: figures are report.json's, pictures show what changed."""

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
from tests import segmentation_project
from tests.chromium import chromium_path
from tests.once import made_once
from tests.quant.report.test_page import VIEWS, matches, opened

pytestmark = pytest.mark.skipif(chromium_path() is None, reason="needs Chromium (Debian's package chromium)")


@pytest.fixture(scope="session")
def segmented(tmp_path_factory):
    """A folder with the reports of a network that loses some pixels, and its project."""

    def make(folder):
        segmentation_project.write_project(folder / "project")
        options = {"out": folder, "algo": "percentile", "percentile": 97.0, "recover": "off"}
        run(settings_from_options(options, folder / "project"))

    return made_once(tmp_path_factory, "segmented", make, charts=True)


def test_every_figure_equals_report_json(page, segmented):
    document = json.loads((segmented / "report.json").read_text())
    shown = opened(page, segmented).evaluate(
        "[...document.querySelectorAll('[data-key]')].map(e => [e.dataset.key, e.textContent])"
    )
    keys = {key for key, _ in shown}
    parts = ("builds.2.miou", "segmentation.classes.0.iou.0", "segmentation.changed.0.lost", "segmentation.builds.2")
    assert all(any(key.startswith(part) for key in keys) for part in parts)
    for key, text in shown:
        value = tables.value_at(document, key)
        if isinstance(value, bool | str):
            continue
        values = value if isinstance(value, list) else [value]
        texts = re.split(r" to |, ", text) if isinstance(value, list) else [text]
        assert all(matches(a, b) for a, b in zip(texts, values, strict=True)), (key, text, value)


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_nothing_sticks_out(page, segmented, width, dark):
    assert opened(page, segmented, width, dark).evaluate("document.documentElement.scrollWidth") == width
    out = page.evaluate(
        f"[...document.querySelectorAll('main *')].filter(e => !e.closest('svg') && "
        f"e.getBoundingClientRect().right > {width} + 0.5).map(e => e.outerHTML.slice(0, 120))"
    )
    assert out == []
    scrolled = "[...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.evaluate(scrolled) == 0


def test_pictures_show_the_pixels_that_changed(page, segmented):
    """Red where FP32 was right and INT8 is wrong, in the image's geometry: a rectangle that lost its class."""
    document = json.loads((segmented / "report.json").read_text())
    rows = document["segmentation"]["changed"]
    assert [row["changed"] for row in rows] == sorted((row["changed"] for row in rows), reverse=True)
    shown = opened(page, segmented).evaluate(
        "[...document.querySelectorAll('.pictures img')].map(e => [e.src, e.naturalWidth, e.naturalHeight])"
    )
    assert len(shown) == len(rows) > 0
    source, width, height = shown[0]
    assert (width, height) == (64, 32)
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))), np.int64)
    red = (drawn[..., 0] > 120) & (drawn[..., 1] < 110)
    mask = np.asarray(Image.open(segmented / "project/masks" / rows[0]["file"]))
    assert red.mean() * 100 == pytest.approx(rows[0]["lost"] * (mask != 255).mean(), rel=0.35)
    assert (mask[red] > 0).mean() > 0.9
