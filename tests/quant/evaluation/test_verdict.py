import pytest

from quant.evaluation.drop import Drop
from quant.evaluation.latency import Latency
from quant.evaluation.verdict import decide, is_near_chance
from quant.settings.run_settings import RunSettings


def drop(points):
    return Drop(points=points, low=points - 1, high=points + 1, lost=0, won=0)


@pytest.mark.parametrize(
    ("asked", "drops", "failed", "labelled", "expected"),
    [
        # precision asked for; measured drops; failed builds; labels; verdict, chosen, exit code
        ("int8", {"int8": 0.5, "fp16": 0.0}, {}, True, ("pass", "int8", 0)),
        ("int8", {"int8": -0.5, "fp16": 0.0}, {}, True, ("pass", "int8", 0)),
        ("int8", {"int8": 1.0, "fp16": 0.0}, {}, True, ("pass", "int8", 0)),  # at the limit is within it
        ("int8", {"int8": 1.01, "fp16": 0.0}, {}, True, ("fail", "fp16", 0)),
        ("int8", {"int8": 9.0, "fp16": 2.0}, {}, True, ("fail", "fp32", 3)),
        ("int8", {"int8": 9.0}, {"fp16": "no"}, True, ("fail", "fp32", 3)),
        ("int8", {"fp16": 0.0}, {"int8": "no"}, True, ("fail", "fp16", 0)),
        ("int8", {"fp16": 2.0}, {"int8": "no"}, True, ("fail", "fp32", 3)),
        ("int8", {}, {"int8": "no", "fp16": "no"}, True, ("fail", "fp32", 3)),
        ("int8", {}, {}, False, ("unlabelled", "int8", 0)),
        ("int8", {}, {"int8": "no"}, False, ("fail", "fp16", 0)),
        ("int8", {}, {"int8": "no", "fp16": "no"}, False, ("fail", "fp32", 3)),
        ("fp16", {"fp16": 0.0}, {}, True, ("pass", "fp16", 0)),
        ("fp16", {"fp16": 1.5}, {}, True, ("fail", "fp32", 3)),
        ("fp16", {}, {"fp16": "no"}, True, ("fail", "fp32", 3)),
        ("fp16", {}, {}, False, ("unlabelled", "fp16", 0)),
        ("fp32", {}, {}, True, ("pass", "fp32", 0)),
        ("fp32", {}, {}, False, ("unlabelled", "fp32", 0)),
    ],
)
def test_the_verdict(asked, drops, failed, labelled, expected):
    settings = RunSettings(precision=asked, max_drop=1.0)
    found = decide(settings, {name: drop(points) for name, points in drops.items()}, failed, labelled=labelled)
    assert (found.verdict, found.chosen, found.exit_code) == expected


def test_the_reason_says_what_spoke_against_each_precision():
    settings = RunSettings(max_drop=0.5)
    found = decide(settings, {"int8": drop(4.1), "fp16": drop(0.75)}, {}, labelled=True)
    assert found.reason == (
        "INT8 loses 4.10 points of top-1, more than the allowed 0.5; "
        "FP16 loses 0.75 points of top-1, more than the allowed 0.5; the plain FP32 model remains"
    )
    found = decide(settings, {"fp16": drop(0.25)}, {"int8": "no Conv"}, labelled=True)
    assert found.reason.startswith("INT8 cannot be built (no Conv); ")
    assert "FP16, 0.25 points of top-1, is within the allowed 0.5" in found.reason


def test_a_negative_limit_demands_a_gain():
    settings = RunSettings(max_drop=-0.1)
    assert decide(settings, {"int8": drop(0.0), "fp16": drop(-0.2)}, {}, labelled=True).chosen == "fp16"


@pytest.mark.parametrize(
    ("top1", "classes", "images", "expected"),
    [
        (10.0, 10, 1000, True),
        (2.0, 10, 1000, True),
        (18.9, 10, 1000, True),  # a tenth of the way from 10 % to 100 % is 19 %
        (19.1, 10, 1000, False),
        (80.0, 10, 1000, False),
        (38.0, 10, 10, True),  # three standard errors of 10 images: 10 + 28.5 %
        (39.0, 10, 10, False),
        (54.9, 2, 10_000, True),
        (55.1, 2, 10_000, False),
        (60.0, 1000, 50, False),
    ],
)
def test_accuracy_near_chance(top1, classes, images, expected):
    assert is_near_chance(top1, classes, images) is expected


@pytest.mark.parametrize(
    ("int8", "fp16", "fp16_drop", "chosen"),
    [
        # milliseconds and batch of both, the drop of FP16
        ((1.00, 64), (0.90, 64), 0.1, "fp16"),
        ((1.00, 64), (1.02, 64), 0.1, "fp16"),  # as fast, within what differs from run to run
        ((1.00, 64), (1.03, 64), 0.1, "int8"),
        ((1.00, 64), (0.90, 64), 1.5, "int8"),  # fast, but it loses too much
        ((1.00, 64), (0.90, 32), 0.1, "int8"),  # a full GPU halved the batch: an image takes longer
    ],
)
def test_int8_is_not_worth_it_where_fp16_is_as_fast(int8, fp16, fp16_drop, chosen):
    latencies = {"int8": Latency(*int8, 200), "fp16": Latency(*fp16, 200)}
    drops = {"int8": drop(0.5), "fp16": drop(fp16_drop)}
    found = decide(RunSettings(max_drop=1.0), drops, {}, latencies, labelled=True)
    assert (found.verdict, found.chosen, found.exit_code) == ("pass", chosen, 0)
    assert ("INT8 is not worth it" in found.reason) == (chosen == "fp16")


def test_a_cpu_never_prefers_fp16_for_its_speed():
    found = decide(RunSettings(max_drop=1.0), {"int8": drop(0.5), "fp16": drop(0.0)}, {}, None, labelled=True)
    assert found.chosen == "int8"


def metric(*drops, allowed=0.0076):
    rows = [{"precision": name, "score": 0.76 - drop, "drop": drop} for name, drop in drops]
    return {"name": "iou", "allowed_drop": allowed, "builds": [{"precision": "fp32", "score": 0.76}, *rows]}


@pytest.mark.parametrize(
    ("int8", "fp16", "expected"),
    [
        (0.0076, 0.0, ("pass", "int8", 0)),
        (0.008, 0.0, ("fail", "fp16", 0)),
        (0.008, 0.01, ("fail", "fp32", 3)),
        (-0.1, 0.0, ("pass", "int8", 0)),
    ],
)
def test_a_metric_decides_in_place_of_top_1(int8, fp16, expected):
    found = decide(
        RunSettings(max_drop=1.0),
        {"int8": drop(50.0 if expected[0] == "pass" else 0.0), "fp16": drop(0.0)},  # top-1 says the contrary
        {},
        labelled=True,
        metric=metric(("fp16", fp16), ("int8", int8)),
    )
    assert (found.verdict, found.chosen, found.exit_code) == expected


def test_a_metric_needs_no_labels_and_says_what_is_allowed():
    found = decide(RunSettings(), {}, {}, labelled=False, metric=metric(("fp16", 0.001), ("int8", 0.02)))
    assert found.verdict == "fail"
    assert found.reason == (
        "INT8 loses 0.02 of iou, more than the allowed 0.0076 (1 % of FP32's 0.76); "
        "the drop of FP16, 0.001 of iou, is within the allowed 0.0076 (1 % of FP32's 0.76)"
    )
