import json
import re
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from quant import run
from quant.report.views.charts import charts_from_document
from quant.report.views.headline import headline
from quant.report.views.markdown import escaped, markdown_from_document
from quant.report.views.render import html_from_document, json_from_document
from quant.report.views.terminal.summary import summary_from_document
from quant.settings.calib_toml import settings_from_options
from tests.once import plain_reports
from tests.outcome import quick_enough

HOSTILE = "<script>alert('1')</script> \"q\" & a|b *c* _d_ `e` [f](g) <b>h</b>"
TIMES = 8  # reason, model, device, file, its reason, warning, preprocessing, command


@pytest.fixture(autouse=True)
def charts(without_charts):
    """Draws none: test_charts.py reads them."""
    without_charts()


@pytest.fixture(scope="module")
def document(demo_master, tmp_path_factory):
    """The report of a small real run."""
    settings = settings_from_options({"num_images": 32, "algo": "minmax"}, demo_master)
    with plain_reports():
        return run(replace(settings, out=tmp_path_factory.mktemp("out")))


@pytest.fixture
def changed(document):
    """A copy of the report with parts replaced."""
    return lambda **parts: json.loads(json.dumps(document)) | parts


NO_CHARTS = {"per_class": None, "confusion": None, "reliability": [], "tensors": [], "layers": None}


@pytest.fixture
def short(changed):
    """The same without the sections whose charts take long to draw."""
    return lambda **parts: changed(**NO_CHARTS, **parts)


@pytest.fixture(scope="module")
def html(document):
    """The whole page."""
    return html_from_document(document)


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.attributes = [], "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def keys(value):
    """All keys of a nested document, with dots between."""
    if isinstance(value, dict):
        return {key + rest for key, inner in value.items() for rest in {"", *(f".{k}" for k in keys(inner))}}
    return set()


def test_the_json_has_every_key_of_the_schema(document):
    expected = {
        "schema", "verdict", "chosen",
        "model.path", "model.sha256",
        "backend.name", "backend.version", "backend.device",
        "data.calibration.path", "data.calibration.images", "data.calibration.sha256",
        "data.evaluation.path", "data.evaluation.images", "data.evaluation.labelled",
        "preprocessing", "quarantined",
        "calibration.algo", "calibration.images", "calibration.tensors", "calibration.seconds",
        "calibration.images_per_second", "calibration.reused", "calibration.cache",
        "builds", "peak_rss_mb",
    }  # fmt: skip
    parsed = json.loads(json_from_document(document))
    assert parsed == document
    assert expected <= keys(parsed)
    assert parsed["schema"] == 1
    build = {"precision", "top1", "top5", "latency_ms", "images_per_second", "bytes"}
    against_fp32 = {"drop_top1", "drop_ci95", "agreement", "sqnr_db", "speedup"}
    assert [row["precision"] for row in parsed["builds"]] == ["fp32", "fp16", "int8"]
    for row in parsed["builds"]:
        assert build | (against_fp32 if row["precision"] != "fp32" else set()) <= set(row)


def test_the_report_of_the_sample_is_what_was_asked_for(document):
    assert (document["verdict"], document["chosen"], document["exit_code"]) == ("pass", quick_enough(document), 0)
    assert document["calibration"]["algo"] == "minmax"
    assert document["calibration"]["images"] == document["data"]["calibration"]["images"] == 32
    assert document["data"]["evaluation"] == {
        "path": document["data"]["calibration"]["path"],
        "images": 899 - 32,
        "labelled": True,
    }
    rows = {row["precision"]: row for row in document["builds"]}
    assert rows["fp32"]["top1"] > 95
    for name in ("fp16", "int8"):
        assert rows[name]["drop_top1"] == pytest.approx(rows["fp32"]["top1"] - rows[name]["top1"], abs=1e-3)
        assert rows[name]["drop_ci95"][0] <= rows[name]["drop_top1"] <= rows[name]["drop_ci95"][1]
        # Rounded: latencies to 1e-4 ms, their ratio to 1e-3, which is much of it where a build is far slower.
        before, after = rows["fp32"]["latency_ms"], rows[name]["latency_ms"]
        rounding = 0.51e-3 + before / after * (0.51e-4 / before + 0.51e-4 / after)
        assert rows[name]["speedup"] == pytest.approx(before / after, abs=rounding)
    assert document["peak_rss_mb"] > 10


def test_what_is_not_finite_is_no_json(changed):
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_from_document(changed(peak_rss_mb=float("nan")))


@pytest.fixture
def hostile(changed, document):
    """A report whose every text from outside tries to be markup."""
    return changed(
        chosen="fp16",  # the reason is shown where it says more than the headline
        reason=HOSTILE,
        model=document["model"] | {"path": HOSTILE},
        backend=document["backend"] | {"device": HOSTILE},
        quarantined=[{"file": HOSTILE + "\nsecond line", "reason": HOSTILE}],
        warnings=[HOSTILE],
        preprocessing={"name": HOSTILE},
        command=HOSTILE,
    )


def test_html_shows_hostile_texts_as_they_are(hostile, short):
    page, plain = Page(html_from_document(hostile | NO_CHARTS)), Page(html_from_document(short()))
    assert page.text.count(HOSTILE) == TIMES
    assert set(page.elements) - set(plain.elements) <= {"ul", "li"}  # the list of warnings
    assert "script" not in page.elements


def test_html_loads_nothing_from_elsewhere(html):
    page = Page(html)
    linked = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset", "background")]
    assert [value for value in linked if not value.startswith(("#", "data:image/jpeg;base64,"))] == []
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert "@import" not in html


@pytest.mark.parametrize(("largest", "ticks"), [([40.0, 8.0, 0.5], {"1", "10"}), ([1.6, 1.3, 1.1], {"1.1", "1.5"})])
def test_charts_write_figures_and_no_formulas(short, largest, ticks):
    """A logarithmic axis writes its powers of ten as formulas, which the page would show as they are written."""
    scales = [{"images": 16 * i, "largest": part, "median": 1.05} for i, part in enumerate(largest, start=1)]
    charts = charts_from_document(short(convergence={"images": 64, "scales": scales, "verdict": []}))
    ((_, svg),) = charts["convergence"]
    texts = re.findall(r">([^<>]+)</text>", svg)
    assert ticks <= set(texts)
    assert [text for text in texts if "$" in text] == []


def test_markdown_shows_hostile_texts_as_they_are(hostile, document):
    markdown_it = pytest.importorskip("markdown_it", reason="a Markdown reader is the oracle here")
    reader = markdown_it.MarkdownIt("commonmark").enable("table")
    source = markdown_from_document(hostile)
    page, plain = Page(reader.render(source)), Page(reader.render(markdown_from_document(document)))
    assert page.text.count(HOSTILE) == TIMES
    assert not {"script", "b", "a", "em", "html"} & set(page.elements)
    assert page.elements.count("table") == plain.elements.count("table") + 1  # images left out
    assert "\nsecond line" not in source  # one line stays one line


COMMANDS = "\x1b]0;owned\x07\x9b31m\u202egnp.exe\u2066\u2028\x00\x7f\udcff"
SHOWN = r"\x1b]0;owned\x07\x9b31m\u202egnp.exe\u2066\u2028\x00\x7f\udcff"
LIVE = (
    "http://evil.example/x",
    "https://a.b",
    "www.evil.example",
    "@torvalds",
    "a/b#12",
    "GH-5",
    "me@host.tld",
    ":+1:",
)


@pytest.fixture
def live(changed, document):
    """A report whose texts from outside hold commands for terminals, and what becomes a link or a mention."""
    texts = [COMMANDS, *LIVE, "- a list", "1. another", "---"]
    return changed(
        warnings=texts, command="calib run " + COMMANDS, quarantined=[{"file": t, "reason": t} for t in texts]
    )


def test_commands_for_terminals_are_shown_as_text_everywhere(live):
    page = Page(html_from_document(live | NO_CHARTS))
    markdown = markdown_from_document(live)
    for text in (html_from_document(live | NO_CHARTS), markdown, json_from_document(live)):
        assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c != "\n"]
        text.encode()
    assert SHOWN in page.text
    assert SHOWN.replace("\\", "\\\\").replace("]", "\\]") in markdown
    assert json.loads(json_from_document(live))["warnings"][0] == COMMANDS.replace("\udcff", r"\udcff")


def test_markdown_makes_no_links_mentions_or_lists_of_names(live):
    markdown_it = pytest.importorskip("markdown_it", reason="a Markdown reader is the oracle here")
    source = markdown_from_document(live)
    for mark in ("http://", "https://", "www.", "@torvalds", "@host", "#12", "GH-5", ":+1:"):
        assert mark not in source
    page = Page(markdown_it.MarkdownIt("commonmark").enable("table").render(source))
    for text in LIVE:
        assert text in page.text  # comments are not shown
    assert "ol" not in page.elements
    for text in ("- a list", "1. another", "---"):
        assert text in page.text
    assert escaped("98.85 and 12:30:45") == "98.85 and 12:30:45"


def test_reports_show_the_same_figures(document, html):
    markdown = markdown_from_document(document)
    summary = summary_from_document(document, Path("out"))
    for row in document["builds"]:
        for text in (html, markdown, summary):
            assert f"{row['top1']:.2f}" in text
        for text in (html, markdown):
            assert f"{row['bytes']:,}" in text
    assert summary.splitlines()[-1] == "report: out/report.html"


def test_the_headline_has_the_drop_with_its_uncertainty(changed, document):
    row = document["builds"][-1] | {
        "drop_top1": 0.25, "drop_ci95": [-0.1, 0.6], "speedup": 2.4, "size_ratio": 2.5, "enough_images": True,
    }  # fmt: skip

    def said(**parts):
        return headline(changed(builds=[document["builds"][0], row | parts]))

    start = "INT8 loses 0.25 points of top-1 (95 % CI -0.10 to 0.60) against FP32 on 867 images, is "
    assert said() == start + "2.4 times faster and 2.5 times smaller: within the allowed 1.0."
    assert said(speedup=0.08).startswith(start + "12 times slower and 2.5 times smaller: ")
    assert said(speedup=0.96, size_ratio=0.8).startswith(start + "as fast and 1.2 times larger: ")
    gains = said(drop_top1=-0.25, drop_ci95=[-0.6, 0.1])
    assert gains.startswith("INT8 gains 0.25 points of top-1 (95 % CI -0.10 to 0.60) against FP32 on 867 images")
    assert gains.endswith(": a loss above the allowed 1.0 is ruled out.")
    assert said(drop_top1=-0.25, drop_ci95=[-3, 2.5], enough_images=False, images_needed=5400).endswith(
        ": no loss as measured, but not enough images to rule out one above the allowed 1.0; about 5,400 would be "
        "needed."
    )
    assert said(drop_top1=-0.004).startswith("INT8 loses 0.00 points of top-1 ")  # as far as it is shown, none
    assert said(drop_top1=2.0).endswith(": above the allowed 1.0.")
    unsure = {"enough_images": False, "images_needed": 5400}
    assert said(**unsure).endswith(
        ": within the allowed 1.0 as measured, but not enough images to tell; about 5,400 would be needed."
    )
    assert said(**unsure | {"images_needed": None}).endswith(
        "so close to the limit that no number of images would be enough to tell."
    )
    assert headline(changed(builds=document["builds"][:1])).startswith("FP32 reaches 9")


def test_the_headline_speaks_of_the_metric_where_there_is_one(changed):
    rows = [
        {"precision": "fp32", "score": 0.76},
        {"precision": "int8", "score": 0.74, "drop": 0.02, "drop_ci95": [0.012, 0.027], "enough_images": True,
         "images_needed": None},
    ]  # fmt: skip
    found = changed(metric={"name": "iou", "images": 300, "allowed_drop": 0.0076, "builds": rows})
    assert headline(found).startswith("INT8 loses 0.02 of iou (95 % CI 0.012 to 0.027) against FP32 on 300 images, is ")
    assert headline(found).endswith(": above the allowed 0.0076 (1 % of FP32's 0.76).")
    better = rows[1] | {"score": 0.77, "drop": -0.01, "drop_ci95": [-0.02, 0.001]}
    found = changed(metric=found["metric"] | {"builds": [rows[0], better]})
    assert headline(found).startswith("INT8 gains 0.01 of iou ")
    assert headline(found).endswith(": a loss above the allowed 0.0076 (1 % of FP32's 0.76) is ruled out.")


def test_the_reason_is_shown_only_where_it_says_more_than_the_headline(short):
    again = "a reason that tells"
    plain = short(chosen="int8", reason=again)
    assert again not in markdown_from_document(plain)
    assert again not in Page(html_from_document(plain)).text
    for parts in ({"chosen": "fp16", "reason": again}, {"chosen": "int8", "verdict": "fail", "reason": again}):
        assert again in markdown_from_document(short(**parts))
        assert again in Page(html_from_document(short(**parts))).text


def test_columns_that_no_build_fills_are_left_out(changed, document):
    rows = [
        row | {"top1": None, "top5": None} | ({"drop_top1": None, "drop_ci95": None} if "drop_top1" in row else {})
        for row in document["builds"]
    ]
    unlabelled = changed(builds=rows, verdict="unlabelled", per_class=None, reliability=[])
    for text in (markdown_from_document(unlabelled), html_from_document(unlabelled)):
        assert "Top-1" not in text
        assert "Agreement" in text


def test_what_tensorrt_made_of_the_graph_is_told(changed, document):
    details = {
        "batch": "64",
        "device_memory_bytes": 13_631_488,
        "without_scale": ["softmax"],
        "graph": {
            "onnx_nodes": 24,
            "engine_layers": 17,
            "reformats": 2,
            "precisions": {"int8": 12, "fp16": 3},
            "fused": {"a + b": ["a", "b"]},
            "pruned": ["c", "d"],
        },
    }
    builds = [
        dict(build) | ({"tensorrt": details} if build["precision"] == "int8" else {}) for build in document["builds"]
    ]
    text = markdown_from_document(changed(builds=builds))
    assert (
        "**INT8 engine**: layers: 12 int8, 3 fp16, 2 copies; 24 ONNX nodes became 17 layers (1 of several nodes, "
        "2 nodes folded); 13.6 MB of device memory at batch 64; 1 tensors have no scale and stay float"
    ) in text
    assert "FP32 engine" not in text


@pytest.fixture
def engine_report(changed, document):
    """The report of a run with an explicit engine that was profiled."""
    layers = [
        {"name": "conv + relu", "type": "CaskConvolution", "precision": "int8", "copies": False,
         "nodes": ["conv", "relu"], "ms": 0.25},
        {"name": "Reformatting", "type": "Reformat", "precision": "fp32", "copies": True, "nodes": [], "ms": 0.5},
    ]  # fmt: skip
    nodes = [
        {"name": "flat", "type": "Flatten", "precision": None, "layers": [], "reason": "a reason", "ms": None},
        {"name": "conv", "type": "Conv", "precision": "int8", "layers": [0], "reason": None, "ms": 0.25},
    ]
    tried = [
        {"pairs": "everywhere", "seconds": 12.0, "milliseconds": 0.75, "int8_work": 0.9, "error": "", "taken": True},
        {"pairs": "nowhere", "seconds": 3.0, "milliseconds": None, "int8_work": None, "error": "no kernel",
         "taken": False},
    ]  # fmt: skip
    graph = {"onnx_nodes": 3, "engine_layers": 2, "reformats": 1, "precisions": {"int8": 1}, "fused": {}, "pruned": []}
    details = {"batch": "8", "device_memory_bytes": 1, "without_scale": [], "graph": graph, "explicit_builds": tried}
    found = {"build": "int8", "source": "engine inspector", "precisions": {"int8": 1}, "layers": layers, "nodes": nodes}
    builds = [
        dict(build) | ({"tensorrt": details} if build["precision"] == "int8" else {}) for build in document["builds"]
    ]
    return changed(builds=builds, **(NO_CHARTS | {"layers": found}))


def test_layers_are_listed_slowest_first_with_their_nodes_and_nodes_with_their_layers(engine_report):
    text = markdown_from_document(engine_report)
    copy = "| Reformatting | Reformat | fp32 | 0.5000 | none: it copies between formats |"
    assert copy in text
    assert text.index(copy) < text.index("| conv + relu | CaskConvolution | int8 | 0.2500 | conv, relu |")
    conv = "| conv | Conv | int8 | 0.2500 | conv + relu |"
    assert text.index(conv) < text.index("| flat | Flatten | \\- | \\- | a reason |")
    assert "1 of 2 nodes have a layer" in text


def test_what_explicit_builds_took_is_listed(engine_report):
    text = markdown_from_document(engine_report)
    assert "| everywhere | 0.75 | 90% | 12 | yes | \\- |" in text
    assert "| nowhere | \\- | \\- | 3 | \\- | no kernel |" in text
    html = html_from_document(engine_report)
    assert "Placements of Q/DQ pairs that were tried" in html
    assert "conv + relu" in html
