"""The charts of report.html, read back as a reader does it: from where marks stand between the axes' ticks.

The browser says where each mark lies; the printed ticks say what that means; report.json says what it should be.
"""

import math
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from quant.report.views.charts import charts_from_document
from tests.chromium import chromium_path

pytestmark = pytest.mark.skipif(chromium_path() is None, reason="needs Chromium (Debian's package chromium)")

# All marks and ticks of a chart: where they lie in units of the drawing, without the width of lines.
READ = """(svg => {
  const place = e => { const b = e.getBBox(), m = svg.getScreenCTM().inverse().multiply(e.getScreenCTM());
    const at = (x, y) => new DOMPoint(x, y).matrixTransform(m), p = at(b.x, b.y), q = at(b.x + b.width, b.y + b.height);
    return {left: Math.min(p.x, q.x), right: Math.max(p.x, q.x), top: Math.min(p.y, q.y), bottom: Math.max(p.y, q.y)};
  };
  const name = svg.parentNode.querySelector('svg > g').id.replace(/-[^-]*$/, ''), axes = [];
  for (const group of svg.querySelectorAll(`[id^="${name}-axes_"]`)) {
    const ticks = kind => [...group.querySelectorAll(`[id^="${name}-${kind}tick_"]`)].map(tick => {
      const mark = tick.querySelector('use'), text = tick.querySelector('text');
      if (!text) return null;
      const found = place(mark || text);
      return [kind == 'x' ? (found.left + found.right) / 2 : (found.top + found.bottom) / 2, text.textContent];
    }).filter(tick => tick);
    const marks = {};
    for (const mark of group.querySelectorAll('[id*="-value."]')) {
      const shape = mark.querySelector('use') || mark.querySelector('path'), style = getComputedStyle(shape);
      marks[mark.id.slice(`${name}-value.`.length)] = {...place(shape),
        colour: style.fill == 'none' ? style.stroke : style.fill, opacity: style.opacity,
        path: (mark.querySelector('path') || shape).getAttribute('d'),
        dots: [...mark.querySelectorAll('use')].map(place).map(
          p => [(p.left + p.right) / 2, (p.top + p.bottom) / 2])};
    }
    const texts = [...group.querySelectorAll('text')].map(t => ({text: t.textContent.trim(), ...place(t)}));
    axes.push({x: ticks('x'), y: ticks('y'), marks, texts, frame: place(group.querySelector('path'))});
  }
  return axes;
})"""
COLOURS = """(() => Object.fromEntries(['bad', 'good', 'build', 'fp32', 'grid'].map(name => {
  const i = document.createElement('i'); i.style.color = `var(--${name})`; document.body.append(i);
  const found = getComputedStyle(i).color; i.remove(); return [found, name]; })))()"""
MINUS = "\N{MINUS SIGN}"
UNITS = {"k": 1e3, "M": 1e6, "G": 1e9}


def number(text):
    """What a tick says: 1, 0.5 with a minus sign before it, 10k."""
    match = re.fullmatch(r"([-+]?[\d.,]+(?:e[-+]?\d+)?)([kMG]?)", text.replace(MINUS, "-"))
    assert match, text
    return float(match[1].replace(",", "")) * UNITS.get(match[2], 1)


class Axis:
    """Positions to values by the ticks; `log` for a logarithmic one."""

    def __init__(self, ticks, *, log=False):
        values = np.array([number(text) for _, text in ticks])
        assert len(values) >= 2, ticks
        self._back = np.exp if log else lambda value: value
        self._line = np.polyfit([position for position, _ in ticks], np.log(values) if log else values, 1)
        read = np.polyval(self._line, [position for position, _ in ticks])
        np.testing.assert_allclose(self._back(read), values, rtol=1e-4, atol=1e-4 * np.abs(values).max())

    def __call__(self, position):
        return float(self._back(np.polyval(self._line, position)))


def named(ticks, position):
    """The label of the tick at a position."""
    return min(ticks, key=lambda tick: abs(tick[0] - position))[1]


def middle(mark, kind="y"):
    return (mark["top"] + mark["bottom"]) / 2 if kind == "y" else (mark["left"] + mark["right"]) / 2


def numbered(marks, what):
    """The marks `what.0`, `what.1` and so on, in order."""
    found = [marks[f"{what}.{i}"] for i in range(len(marks)) if f"{what}.{i}" in marks]
    assert len(found) == sum(re.fullmatch(rf"{re.escape(what)}\.\d+", key) is not None for key in marks)
    return found


@pytest.fixture(scope="module")
def chart(page, made):
    """The axes of the charts in a section."""
    page.look(1280)
    page.open(made / "report.html")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")

    def read(section, place=0):
        return page.evaluate(f"{READ}(document.querySelectorAll('#{section} figure svg')[{place}])")

    return read


@pytest.fixture(scope="module")
def colour_of(page, made):
    """The name of a mark's colour."""
    page.open(made / "report.html")
    names = page.evaluate(COLOURS)
    return lambda mark: names[mark["colour"]]


def test_the_drops_of_the_builds(chart, found, colour_of):
    (axes,) = chart("builds")
    x, rows = Axis(axes["x"]), found["builds"][1:]
    dots, lines = numbered(axes["marks"], "drop"), numbered(axes["marks"], "interval")
    assert len(dots) == len(lines) == len(rows) == 2
    for row, dot, line in zip(rows, dots, lines, strict=True):
        assert named(axes["y"], middle(dot)) == named(axes["y"], middle(line)) == row["precision"].upper()
        assert x(dot["dots"][0][0]) == pytest.approx(row["drop_top1"], abs=0.02)
        assert [x(line["left"]), x(line["right"])] == pytest.approx(row["drop_ci95"], abs=0.02)
        assert colour_of(line) == ("good" if row["drop_top1"] <= found["max_drop"] else "bad")
        above = [t for t in axes["texts"] if abs(middle(t, "x") - middle(dot, "x")) < 2 and t["bottom"] < middle(dot)]
        assert number(max(above, key=middle)["text"]) == pytest.approx(row["drop_top1"], abs=0.005)
    assert x(middle(axes["marks"]["allowed"], "x")) == pytest.approx(found["max_drop"], abs=0.02)


def test_latency_and_size_of_the_builds(chart, found):
    """Without ticks: lengths are in proportion, and each bar bears its value."""
    for axes, what, unit, digits in zip(chart("builds", 1), ("latency", "bytes"), (1, 1000), (2, 1), strict=True):
        key = {"latency": "latency_ms", "bytes": "bytes"}[what]
        bars = numbered(axes["marks"], what)
        lengths = [bar["right"] - bar["left"] for bar in bars]
        values = [row[key] / unit for row in found["builds"]]
        np.testing.assert_allclose(np.array(lengths) / max(lengths), np.array(values) / max(values), atol=0.003)
        texts = [text for text in axes["texts"] if re.fullmatch(r"[\d,.]+", text["text"])]
        for bar, value in zip(bars, values, strict=True):
            beside = min(texts, key=lambda text: abs(middle(text) - middle(bar)))
            assert number(beside["text"]) == pytest.approx(value, abs=0.51 * 10**-digits)
            assert beside["left"] > bar["right"]


def test_names_of_the_builds_stand_beside_their_bars(chart, found):
    left = chart("builds", 1)[0]
    names = [named(left["y"], middle(bar)) for bar in numbered(left["marks"], "latency")]
    assert names == [row["precision"].upper() for row in found["builds"]]


def test_drops_of_the_classes(chart, found, colour_of):
    (axes,) = chart("classes")
    x, rows = Axis(axes["x"]), found["per_class"]
    bars, lines = numbered(axes["marks"], "drop"), numbered(axes["marks"], "interval")
    assert len(bars) == len(lines) == len(rows)
    for row, bar, line in zip(rows, bars, lines, strict=True):
        label = named(axes["y"], middle(bar))
        assert " ".join(row["name"].split())[:21] == label.rstrip("…")[:21]
        ends = sorted([0, row["drop"]])
        assert [x(bar["left"]), x(bar["right"])] == pytest.approx(ends, abs=0.1)
        assert [x(line["left"]), x(line["right"])] == pytest.approx(row["drop_ci95"], abs=0.1)
        assert colour_of(bar) == ("bad" if row["drop"] > 0 else "good")
    assert [middle(bar) for bar in bars] == sorted(middle(bar) for bar in bars)  # the worst on top


def test_the_confusion_that_int8_adds(chart, found, colour_of):
    (axes,) = chart("confusion")
    matrix, names = found["confusion"]["matrix"], [" ".join(name.split()) for name in found["classes"]]
    shown = {tuple(map(int, key.split(".")[1:])): mark for key, mark in axes["marks"].items()}
    assert set(shown) == {(i, j) for i, row in enumerate(matrix) for j, value in enumerate(row) if value}
    texts = [text for text in axes["texts"] if re.fullmatch(r"[-+]\d+", text["text"])]
    most = max(abs(value) for row in matrix for value in row)
    for (i, j), cell in shown.items():
        for label, name in (
            (named(axes["y"], middle(cell)), names[i]),
            (named(axes["x"], middle(cell, "x")), names[j]),
        ):
            assert label.rstrip("…") == name[: len(label.rstrip("…"))]
        (inside,) = (
            t for t in texts
            if cell["left"] < middle(t, "x") < cell["right"] and cell["top"] < middle(t) < cell["bottom"]
        )  # fmt: skip
        assert int(inside["text"]) == matrix[i][j]
        assert colour_of(cell) == ("good" if (matrix[i][j] > 0) == (i == j) else "bad")
        assert float(cell["opacity"]) == pytest.approx(0.15 + 0.5 * abs(matrix[i][j]) / most, abs=0.01)


def test_confidence_against_accuracy(chart, found, colour_of):
    above, below = chart("reliability")
    across, up, count = Axis(above["x"] or below["x"]), Axis(above["y"]), Axis(below["y"])
    for place, curve in enumerate(found["reliability"]):
        line, bars = above["marks"][f"curve.{place}"], numbered(below["marks"], f"images.{place}")
        expected = [(row["confidence"], row["accuracy"]) for row in curve["bins"]]
        np.testing.assert_allclose([(across(x), up(y)) for x, y in line["dots"]], expected, atol=0.2)
        for row, bar in zip(curve["bins"], bars, strict=True):
            assert row["low"] <= across(bar["left"]) < across(bar["right"]) <= row["high"]
            assert count(bar["top"]) - count(bar["bottom"]) == pytest.approx(row["images"], abs=1)
            assert colour_of(bar) == ("fp32" if curve["precision"] == "fp32" else "build")


def test_every_quantized_tensor(chart, found):
    (axes,) = chart("tensors")
    rows = [row for row in found["tensors"] if row["quantized"] and row["sqnr_db"] is not None]
    log = min(row["amax_ratio"] for row in rows) < 0.1
    x, y = Axis(axes["x"], log=log), Axis(axes["y"])
    read = [(x(a), y(b)) for a, b in axes["marks"]["tensors"]["dots"]]
    expected = [(row["amax_ratio"], row["sqnr_db"]) for row in rows]
    np.testing.assert_allclose(read, expected, rtol=0.01, atol=0.05)
    np.testing.assert_allclose(axes["marks"]["first"]["dots"][0], axes["marks"]["tensors"]["dots"][0], atol=1e-3)
    assert any(
        text["text"].lstrip("…") and rows[0]["name"].endswith(text["text"].lstrip("…")) for text in axes["texts"]
    )


def test_histograms_with_amax_marked(chart, found):
    rows = [row for row in found["tensors"] if "histogram" in row]
    assert len(rows) == 6
    for place, row in enumerate(rows):
        (axes,) = chart("tensors", 1 + place)
        x, count = Axis(axes["x"]), Axis(axes["y"], log=True)
        counts, width = row["histogram"]["counts"], row["histogram"]["bin_width"]
        right = axes["frame"]["right"]
        assert x(middle(axes["marks"]["amax"], "x")) == pytest.approx(row["amax"], rel=0.01, abs=0.002 * x(right))
        assert x(right) == pytest.approx(max(len(counts) * width, 1.02 * row["amax"]), rel=0.01)
        assert ("clipped" in axes["marks"]) == (row["amax_ratio"] < 1)
        if "clipped" in axes["marks"]:
            cut = axes["marks"]["clipped"]
            assert [x(cut["left"]), cut["right"]] == pytest.approx([row["amax"], right], rel=0.01, abs=0.5)
        steps = np.array(re.findall(r"([-\d.]+) ([-\d.]+)", axes["marks"]["counts"]["path"]), float)
        for i in np.flatnonzero(counts):  # the step over the middle of each bin
            centre = (i + 0.5) * width
            over = [a[1] for a, b in pairwise(steps) if a[1] == b[1] and x(a[0]) < centre < x(b[0])]
            top = min(over)
            assert math.log10(count(top)) == pytest.approx(math.log10(counts[i]), abs=0.02)


def test_layers_by_type(chart, found):
    (axes,) = chart("layers")
    x, layers = Axis(axes["x"]), found["layers"]["layers"]
    read = {}
    for key, bar in axes["marks"].items():
        length = round(x(bar["right"]) - x(bar["left"]), 1)
        if length:
            read[named(axes["y"], middle(bar)), key.split(".")[0]] = length
    counts = Counter((layer["type"], layer["precision"]) for layer in layers)
    assert read == {kind: pytest.approx(count, abs=0.1) for kind, count in counts.items()}


def test_a_metric_s_drops_take_the_place_of_top_1_s(page, found, tmp_path):
    metric = {
        "name": "iou", "allowed_drop": 0.0076,
        "builds": [
            {"precision": "fp32", "score": 0.76},
            {"precision": "int8", "score": 0.74, "drop": 0.02, "drop_ci95": [0.012, 0.027]},
        ],
    }  # fmt: skip
    charts = charts_from_document(found | {"builds": [found["builds"][0], found["builds"][-1]], "metric": metric})
    (tmp_path / "chart.html").write_text(f"<figure>{charts['builds'][0][1]}</figure>", encoding="utf-8")
    page.open(tmp_path / "chart.html")
    (axes,) = page.evaluate(f"{READ}(document.querySelector('svg'))")
    x = Axis(axes["x"])
    assert x(axes["marks"]["drop.0"]["dots"][0][0]) == pytest.approx(0.02, abs=2e-4)
    line = axes["marks"]["interval.0"]
    assert [x(line["left"]), x(line["right"])] == pytest.approx([0.012, 0.027], abs=2e-4)
    assert x(middle(axes["marks"]["allowed"], "x")) == pytest.approx(0.0076, abs=2e-4)
    assert any(text["text"].startswith("iou lost against FP32") for text in axes["texts"])
