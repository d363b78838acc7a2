"""report.html in a browser: every figure is report.json's, nothing sticks out, no chart is empty, texts stay texts."""

import re
from itertools import pairwise

import pytest

from quant.report.views import tables
from tests.chromium import chromium_path

pytestmark = pytest.mark.skipif(chromium_path() is None, reason="needs Chromium (Debian's package chromium)")

VIEWS = [(width, dark) for width in (1280, 390) for dark in (False, True)]
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def opened(page, made, width=1280, dark=False, media="screen"):
    page.look(width, dark=dark, media=media)
    page.open(made / "report.html")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    return page


def test_the_run_has_something_to_show(found, hostile_classes):
    assert found["flips"]["lost"] > 10
    assert found["per_class"][0]["drop"] > 0
    assert found["confusion"]["pairs"]
    assert len(found["quarantined"]) == 1
    assert {row["name"] for row in found["per_class"]} >= set(hostile_classes)


def matches(text, value):
    """Is this number what the value rounds to, at the digits that are shown?"""
    shown = float(text.replace(",", ""))
    digits = len(text.split(".")[1]) if "." in text and "e" not in text else 0
    allowed = abs(value) * 1e-3 if "e" in text or (abs(value) >= 1000 and not digits) else 0
    return abs(shown - value) <= max(0.5000001 * 10**-digits, allowed)


def test_every_figure_equals_report_json(page, made, found):
    shown = opened(page, made).evaluate(
        "[...document.querySelectorAll('[data-key]')].map(e => [e.dataset.key, e.textContent])"
    )
    assert len(shown) > 300
    for key, text in shown:
        value = tables.value_at(found, key)
        if isinstance(value, bool):
            assert text == ("yes" if value else "no"), key
        elif isinstance(value, str):
            assert text in (value, value.upper()), key
        else:
            values = value if isinstance(value, list) else [value]
            texts = re.split(r" to |, ", text) if isinstance(value, list) else [text]
            assert len(texts) == len(values), key
            assert all(matches(a, b) for a, b in zip(texts, values, strict=True)), (key, text, value)


def test_no_table_has_a_figure_of_its_own(page, made):
    own = opened(page, made).evaluate(
        "[...document.querySelectorAll('td, dd, .cards small span')].filter(e => !e.closest('[data-key]') && "
        "!e.querySelector('[data-key]')).map(e => e.textContent.trim())"
    )
    assert set(own) <= {"-", *(column.title for column in tables.BUILDS)}


def test_the_headline_s_figures_are_the_build_s(page, made, found):
    text = opened(page, made).evaluate("document.querySelector('.headline').textContent")
    row = found["builds"][-1]
    expected = [abs(row["drop_top1"]), *row["drop_ci95"], found["data"]["evaluation"]["images"]]
    rest = text.removeprefix("INT8 ").replace("top-1", "").replace("95 % CI", "").replace("FP32", "")
    assert all(matches(a, b) for a, b in zip(NUMBER.findall(rest), expected, strict=False)), text
    tail = NUMBER.findall(rest)[4:]
    ratios = [ratio if ratio >= 1 else 1 / ratio for ratio in (row["speedup"], row["size_ratio"])]
    allowed = [
        *(ratio for ratio in ratios if ratio >= 1.05),  # less is "as fast", "as large"
        found["max_drop"],
        *([row["images_needed"]] * bool(row["images_needed"])),
    ]
    assert all(matches(a, b) for a, b in zip(tail, allowed, strict=True)), text


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_nothing_sticks_out(page, made, width, dark):
    assert opened(page, made, width, dark).evaluate("innerWidth") == width
    assert page.evaluate("document.documentElement.scrollWidth") == width
    out = page.evaluate(
        f"[...document.querySelectorAll('main *')].filter(e => !e.closest('svg') && "
        f"e.getBoundingClientRect().right > {width} + 0.5).map(e => e.outerHTML.slice(0, 120))"
    )
    assert out == []
    scrolled = "[...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.evaluate(scrolled) == 0


def test_nothing_sticks_out_in_print(page, made):
    opened(page, made, 720, media="print")
    assert page.evaluate("document.documentElement.scrollWidth") == 720
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


CHARTS = """[...document.querySelectorAll('figure')].map(figure => {
  const svg = figure.querySelector('svg'), box = svg.getBoundingClientRect();
  const visible = [...svg.querySelectorAll('path, use')].filter(e => {
    const drawn = e.getBoundingClientRect();
    return /--(build|fp32|good|bad)/.test(e.outerHTML + e.parentNode.outerHTML.slice(0, 4000))
      && drawn.width + drawn.height > 2 && drawn.right > box.left && drawn.left < box.right
      && drawn.bottom > box.top && drawn.top < box.bottom;
  });
  const texts = [...svg.querySelectorAll('text')].filter(e => e.textContent.trim());
  const outside = texts.filter(e => {
    const t = e.getBoundingClientRect();
    return t.left < box.left - 6 || t.right > box.right + 6 || t.top < box.top - 6 || t.bottom > box.bottom + 6;
  });
  return {caption: figure.querySelector('figcaption').textContent, width: box.width, height: box.height,
    drawn: visible.length, texts: texts.length, outside: outside.map(e => e.textContent),
    smallest: Math.min(...texts.map(e => parseFloat(getComputedStyle(e).fontSize)
      * box.width / svg.viewBox.baseVal.width))};
})"""


@pytest.mark.parametrize("width", [1280, 390])
def test_no_chart_is_empty_or_unreadable(page, made, width):
    charts = opened(page, made, width).evaluate(CHARTS)
    assert len(charts) == 7 + 6  # drops, costs, classes, confusion, reliability, tensors, layers; six histograms
    for chart in charts:
        assert chart["width"] > 250, chart
        assert chart["height"] > 60, chart
        assert chart["drawn"] > 0, chart
        assert chart["texts"] > 2, chart
        assert chart["outside"] == [], chart
        assert chart["smallest"] >= 8, chart


CONTRAST = """(() => {
  const style = getComputedStyle(document.documentElement);
  const light = name => { const c = document.createElement('i'); c.style.color = style.getPropertyValue(name);
    document.body.append(c); const rgb = getComputedStyle(c).color.match(/\\d+/g).map(v => v / 255); c.remove();
    const [r, g, b] = rgb.map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const paper = light('--paper');
  return ['--ink', '--soft', '--good', '--bad', '--doubt', '--build'].map(name => {
    const other = light(name); return (Math.max(paper, other) + 0.05) / (Math.min(paper, other) + 0.05); });
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_letters_stand_out_from_the_paper(page, made, dark):
    opened(page, made, dark=dark)
    assert min(page.evaluate(CONTRAST)) >= 4.5  # what WCAG 2 asks of small letters
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") is not dark
    used = page.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
    assert used == page.evaluate("getComputedStyle(document.body).color")


def test_names_from_outside_stay_texts(page, made, found, hostile_classes):
    opened(page, made)
    page.evaluate("new Promise(done => setTimeout(done, 100))")
    assert page.evaluate("typeof hit") == "undefined"
    assert page.evaluate("document.scripts.length") == 0
    assert page.evaluate("document.querySelectorAll('main b, main i:not(.fact > i)').length") == 0
    texts = page.evaluate("[...document.querySelectorAll('.name')].map(e => e.textContent)")
    for name in (*hostile_classes, found["model"]["path"], found["quarantined"][0]["file"], found["command"]):
        assert name in texts
    ticks = page.evaluate("[...document.querySelectorAll('#classes svg text')].map(e => e.textContent)")
    assert "0 <script>window.hit=1<"[:21] in [tick[:21] for tick in ticks]
    assert "4 $x_1$ {y}" in ticks
    assert "3 two lines" in ticks


def test_pictures_of_flipped_images_are_shown(page, made, found):
    opened(page, made)
    widths = page.evaluate("[...document.querySelectorAll('.cards img')].map(e => e.naturalWidth)")
    kinds = [row["kind"] for row in found["flips"]["images"]]
    assert len(widths) == sum(min(kinds.count(kind), 18) for kind in set(kinds))
    assert set(widths) == {8}  # the digits are 8 pixels wide


def test_sections_follow_each_other_once(page, made):
    ids = opened(page, made).evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(set(ids)) == len(ids)
    tops = page.evaluate("[...document.querySelectorAll('section')].map(e => e.getBoundingClientRect().top)")
    assert all(a < b for a, b in pairwise(tops))
    anchors = page.evaluate("[...document.querySelectorAll('section')].map(e => e.id)")
    assert anchors == [
        "compared", "builds", "outputs", "classes", "flips", "confusion", "reliability", "tensors", "layers",
        "warnings", "quarantined", "repeat",
    ]  # fmt: skip


def test_the_page_is_small(made):
    assert (made / "report.html").stat().st_size < 1_000_000
