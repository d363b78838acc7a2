"""What a report says of outputs: worst first, as deployed, and what is advised where nothing or little was shown."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from quant.evaluation.fidelity import ChannelGroup, OutputFidelity
from quant.report.contents.outputs import deployed_from_evaluation, outputs_from_evaluation
from quant.report.views.headline import advice, headline
from quant.report.views.markdown import markdown_from_document
from quant.report.views.render import html_from_document
from quant.report.views.terminal.summary import summary_from_document

BOXES = OutputFidelity("boxes", 50.0)
JOINT = OutputFidelity("found", 46.5, (ChannelGroup(4, 6, 3, 6.14), ChannelGroup(0, 3, 4, 50.0)), 5, 5.9)
EXACT = OutputFidelity("exact", math.inf)


@pytest.fixture
def of_outputs(evaluation):
    """An evaluation of one unlabelled image with these outputs."""
    return lambda *fidelity: replace(evaluation(None, [0]), fidelity=fidelity)


@pytest.fixture
def document(of_outputs):
    """A report of FP32, FP16 and INT8 without labels, whose last row and other parts can be replaced."""

    def make(*fidelity, verdict="unlabelled", chosen="int8", agreement=None, deployed=None, top1=None, **row):
        rows = [
            {"precision": name, "top1": top1, "top5": None, "latency_ms": 1.0, "latency_batch": 8, "bytes": 100,
             "images_per_second": 8000.0, "drop_top1": None, "drop_ci95": None, "agreement": None, "sqnr_db": 70.0,
             "agreement_ci95": None, "lost": None, "won": None, "speedup": 2.0, "size_ratio": 3.0,
             "outputs": [], "deployed": None}
            for name in ("fp32", "fp16", "int8")
        ]  # fmt: skip
        rows[2] |= {"outputs": outputs_from_evaluation(of_outputs(*fidelity)), "deployed": deployed} | row
        if agreement is not None:
            rows[2] |= {"agreement": agreement[0], "agreement_ci95": list(agreement[1:])}
        return {
            "verdict": verdict, "chosen": chosen, "examined": "int8", "reason": "because", "max_drop": 1.0,
            "builds": rows, "data": {"evaluation": {"images": 300}}, "metric": None,
        }  # fmt: skip

    return make


def test_outputs_are_listed_worst_first_by_their_worst_part(of_outputs):
    rows = outputs_from_evaluation(of_outputs(EXACT, BOXES, JOINT))
    assert [(row["name"], row["sqnr_db"], row["worst_db"]) for row in rows] == [
        ("found", 46.5, 6.14),
        ("boxes", 50.0, 50.0),
        ("exact", None, None),
    ]
    assert rows[0]["groups"] == [
        {"first": 4, "last": 6, "channels": 3, "sqnr_db": 6.14},
        {"first": 0, "last": 3, "channels": 4, "sqnr_db": 50.0},
    ]
    assert (rows[0]["worst_channel"], rows[0]["worst_channel_db"]) == (5, 5.9)


@pytest.mark.parametrize(
    ("fidelity", "told"),
    [
        ([BOXES, JOINT], "INT8 has the lowest SQNR, 6.1 dB, in output 'found', channels 4 to 6. "),
        ([BOXES, EXACT], "INT8 has the lowest SQNR, 50.0 dB, in output 'boxes'. "),
        ([EXACT], "All outputs of INT8 are equal to the baseline's. "),
        ([], "INT8 ran. "),
    ],
)
def test_without_labels_the_worst_output_leads(document, fidelity, told):
    assert headline(document(*fidelity)) == (
        f"{told}INT8 is 2.0 times faster and 3.0 times smaller; its accuracy drop is not known."
    )


def test_without_labels_the_agreement_has_its_interval(document):
    assert headline(document(BOXES, agreement=(98.5, 96.4, 99.4))) == (
        "INT8 has the lowest SQNR, 50.0 dB, in output 'boxes'. It agrees with FP32 on 98.50 % (95 % CI 96.40 to 99.40) "
        "of 300 unlabelled images. INT8 is 2.0 times faster and 3.0 times smaller; its accuracy drop is not known."
    )


def test_where_fp32_is_at_chance_the_headline_says_that_nothing_was_shown(document):
    found = document(BOXES, verdict="invalid", chosen="fp32", top1=10.2, drop_top1=0.0, drop_ci95=[-1.0, 1.0])
    assert headline(found) == "FP32 reaches 10.20 % top-1 on 300 images, near chance, so nothing was shown."


@pytest.mark.parametrize(
    ("verdict", "chosen", "advised"),
    [
        ("pass", "int8", "use INT8"),
        ("pass", "fp32", "use FP32"),
        ("fail", "fp16", "use FP16"),
        ("unlabelled", "int8", "INT8 as far as images without labels tell"),
        ("unlabelled", "fp16", "FP16 as far as images without labels tell"),
        ("unlabelled", "fp32", "use FP32"),  # what the others are held against needs no labels
        ("invalid", "fp32", "nothing was shown"),
    ],
)
def test_a_build_is_advised_where_something_was_shown(document, verdict, chosen, advised):
    found = document(BOXES, verdict=verdict, chosen=chosen, top1=10.0 if verdict == "invalid" else None)
    assert advice(found) == advised
    lines = summary_from_document(found, Path("out")).splitlines()
    if (verdict, chosen) == ("pass", "int8"):  # nothing is said twice
        assert lines[-2] == f"{verdict}, {advised}: {headline(found)}"
    else:
        assert lines[-2] == f"{advised}: because"
        assert lines[-3] == f"{verdict}: {headline(found)}"


DEPLOYED = {
    "images": 256, "sqnr_db": 46.0, "written_sqnr_db": 46.5, "top1": None, "written_top1": None, "differs": True,
    "output": "scores", "output_db": 12.0, "written_output_db": 30.0, "missing_instructions": "AMX",
}  # fmt: skip


@pytest.fixture
def full(made, found):
    """A real report with other outputs of INT8."""

    def make(outputs, deployed):
        rows = [dict(row) for row in found["builds"]]
        rows[-1] |= {"outputs": outputs, "deployed": deployed}
        none = {"per_class": None, "confusion": None, "reliability": [], "tensors": [], "layers": None}
        return found | none | {"builds": rows}

    return make


def test_both_reports_show_outputs_groups_and_what_deployment_changes(full, of_outputs):
    found = full(outputs_from_evaluation(of_outputs(BOXES, JOINT)), DEPLOYED)
    said = "the lowest SQNR of output 'scores' is 12.0 dB instead of 30.0 dB on the first 256 images"
    for text in (markdown_from_document(found), html_from_document(found).replace("&#39;", "'")):
        assert "Outputs, worst first" in text
        assert "Channels of found" in text
        assert text.index("6.1") < text.index("50.0")
        assert said in text
    same = full(outputs_from_evaluation(of_outputs(BOXES)), DEPLOYED | {"differs": False})
    assert "instead of" not in markdown_from_document(same)


def test_the_deployed_form_is_told_by_the_output_that_loses_most(of_outputs):
    written = of_outputs(BOXES, OutputFidelity("scores", 30.0))
    deployed = of_outputs(BOXES, OutputFidelity("scores", 12.0))
    row = deployed_from_evaluation(replace(written, written=written, deployed=deployed))
    assert (row["output"], row["output_db"], row["written_output_db"]) == ("scores", 12.0, 30.0)
    assert (row["differs"], row["images"]) == (True, 1)
    assert deployed_from_evaluation(written) is None
