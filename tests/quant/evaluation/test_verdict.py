import math

import numpy as np
import pytest

from quant.evaluation.accuracy import Evaluation
from quant.evaluation.drop import Drop
from quant.evaluation.fidelity import ChannelGroup, OutputFidelity
from quant.evaluation.latency import Latency
from quant.evaluation.verdict import Findings, closeness, decide, is_near_chance, nothing_shown, unfit
from quant.settings.run_settings import RunSettings


def drop(points):
    return Drop(points=points, low=points - 1, high=points + 1, lost=0, won=0)


def evaluation(predicted=None, labels=None, classes=None, fidelity=()):
    """An evaluation of these answers; of 100 images where the model is no classifier."""
    arrays = [None if values is None else np.asarray(values, np.int64) for values in (labels, predicted)]
    images = 100 if predicted is None else len(predicted)
    return Evaluation(images, *arrays, None, None, None, 1.0, 30.0, fidelity=tuple(fidelity), classes=classes)


def findings(drops=None, failed=None, *, labelled=True, latencies=None, engines=False, metric=None, fidelity=()):
    """What a run found of builds whose drops in points are given, beside an FP32 model that is always right."""
    right = evaluation(np.arange(50) % 10, np.arange(50) % 10 if labelled else None, 10)
    other = evaluation(np.arange(50) % 10, right.labels, 10, fidelity)
    return Findings(
        {"fp32": right, "fp16": right, "int8": other},
        {name: drop(points) for name, points in (drops or {}).items()},
        failed or {},
        latencies or {},
        engines,
        metric,
    )


def output(name, level, *groups, is_scores=False):
    return OutputFidelity(name, level, tuple(ChannelGroup(*group) for group in groups), is_scores=is_scores)


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
    found = decide(settings, findings(drops, failed, labelled=labelled))
    assert (found.verdict, found.chosen, found.exit_code) == expected


def test_the_reason_says_what_spoke_against_each_precision():
    settings = RunSettings(max_drop=0.5)
    found = decide(settings, findings({"int8": 4.1, "fp16": 0.75}))
    assert found.reason == (
        "INT8 loses 4.10 points of top-1, more than the allowed 0.5; "
        "FP16 loses 0.75 points of top-1, more than the allowed 0.5; the plain FP32 model remains"
    )
    found = decide(settings, findings({"fp16": 0.25}, {"int8": "no Conv"}))
    assert found.reason.startswith("INT8 cannot be built (no Conv); ")
    assert "FP16, 0.25 points of top-1, is within the allowed 0.5" in found.reason


def test_a_negative_limit_demands_a_gain():
    settings = RunSettings(max_drop=-0.1)
    assert decide(settings, findings({"int8": 0.0, "fp16": -0.2})).chosen == "fp16"


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
    drops = {"int8": 0.5, "fp16": fp16_drop}
    found = decide(RunSettings(max_drop=1.0), findings(drops, latencies=latencies, engines=True))
    assert (found.verdict, found.chosen, found.exit_code) == ("pass", chosen, 0)
    assert ("INT8 is not worth it" in found.reason) == (chosen == "fp16")


@pytest.mark.parametrize(
    ("fp16", "fp32", "chosen"),
    [(0.70, 0.60, "fp32"), (0.60, 0.70, "fp16"), (0.70, 0.70, "int8"), (None, 0.60, "fp32")],
)
def test_an_int8_engine_must_be_faster_than_the_faster_of_fp16_and_fp32(fp16, fp32, chosen):
    times = {"int8": 0.65, "fp16": fp16, "fp32": fp32}
    latencies = {name: Latency(time, 8, 200) for name, time in times.items() if time is not None}
    drops, failed = {"int8": 0.0, "fp16": 0.0}, {}
    if fp16 is None:
        failed["fp16"] = "no"
    found = decide(RunSettings(), findings(drops, failed, latencies=latencies, engines=True))
    assert found.chosen == chosen
    assert ("INT8 is not worth it" in found.reason) == (chosen != "int8")


@pytest.mark.parametrize(
    ("int8", "chosen", "factor"),
    [
        ((0.90, 64), "int8", None),
        ((1.09, 64), "int8", None),  # within what other programs cost
        ((1.20, 64), "fp32", "1.2"),
        ((3.60, 64), "fp32", "3.6"),
        ((1.20, 128), "int8", None),  # by image it is faster
    ],
)
def test_a_slower_int8_is_not_recommended_on_a_cpu_which_is_no_forecast_for_a_gpu(int8, chosen, factor):
    latencies = {"int8": Latency(*int8, 200), "fp32": Latency(1.0, 64, 200), "fp16": Latency(0.1, 64, 200)}
    found = decide(RunSettings(max_drop=1.0), findings({"int8": 0.5, "fp16": 0.0}, latencies=latencies))
    assert (found.verdict, found.chosen, found.exit_code) == ("pass", chosen, 0)
    told = (
        f"but on this CPU INT8 is {factor} times slower than FP32 (1.000 ms against {int8[0]:.3f} ms per batch of 64)"
    )
    assert (told in found.reason) == (chosen == "fp32")
    assert ("that is no forecast for a GPU" in found.reason) == (chosen == "fp32")


def test_a_cpu_never_prefers_fp16_for_its_speed():
    latencies = {name: Latency(ms, 64, 200) for name, ms in (("int8", 1.0), ("fp32", 1.0), ("fp16", 0.1))}
    assert decide(RunSettings(), findings({"int8": 0.5, "fp16": 0.0}, latencies=latencies)).chosen == "int8"


def test_a_slow_int8_that_loses_too_much_is_replaced_for_its_loss():
    latencies = {"int8": Latency(9.0, 64, 200), "fp32": Latency(1.0, 64, 200)}
    found = decide(RunSettings(), findings({"int8": 5.0, "fp16": 0.0}, latencies=latencies))
    assert (found.verdict, found.chosen) == ("fail", "fp16")
    assert "CPU" not in found.reason


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
    contrary = {"int8": 50.0 if expected[0] == "pass" else 0.0, "fp16": 0.0}  # what top-1 says
    found = decide(RunSettings(max_drop=1.0), findings(contrary, metric=metric(("fp16", fp16), ("int8", int8))))
    assert (found.verdict, found.chosen, found.exit_code) == expected


def test_a_metric_needs_no_labels_and_says_what_is_allowed():
    found = decide(RunSettings(), findings(labelled=False, metric=metric(("fp16", 0.001), ("int8", 0.02))))
    assert found.verdict == "fail"
    assert found.reason == (
        "INT8 loses 0.02 of iou, more than the allowed 0.0076 (1 % of FP32's 0.76); "
        "the drop of FP16, 0.001 of iou, is within the allowed 0.0076 (1 % of FP32's 0.76)"
    )


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (-0.26, "INT8 gains 0.26 points of top-1"),
        (-0.001, "the drop of INT8, 0.00 points of top-1, is within the allowed 1.0"),  # as far as it is shown, none
        (0.0, "the drop of INT8, 0.00 points of top-1, is within the allowed 1.0"),
        (0.26, "the drop of INT8, 0.26 points of top-1, is within the allowed 1.0"),
    ],
)
def test_a_build_that_is_better_than_fp32_gains(points, said):
    assert decide(RunSettings(), findings({"int8": points, "fp16": 0.0})).reason == said


def test_a_gain_may_be_less_than_what_is_asked_for():
    found = decide(RunSettings(max_drop=-0.5), findings({"int8": -0.26, "fp16": -0.6}))
    assert (found.verdict, found.chosen) == ("fail", "fp16")
    assert found.reason == (
        "INT8 gains only 0.26 points of top-1, and the largest allowed drop is -0.5; FP16 gains 0.60 points of top-1"
    )


@pytest.mark.parametrize(
    ("lower_is_better", "drop", "said"),
    [
        (True, -0.25, "INT8 takes 0.25 off the mean error"),
        (True, 0.25, "INT8 adds 0.25 to the mean error, which is within the allowed 0.5"),
        (False, -0.25, "INT8 gains 0.25 of mean error"),
    ],
)
def test_a_gain_in_a_task_s_score_is_told_by_its_sense(lower_is_better, drop, said):
    section = metric(("fp16", 0.0), ("int8", drop), allowed=0.5)
    section |= {"name": "mean error", "task": "regress", "unit": "", "limit": "0.5", "lower_is_better": lower_is_better}
    assert decide(RunSettings(), findings(metric=section)).reason == said


def chance(predicted, labels, classes):
    right = evaluation(predicted, labels, classes)
    return Findings({"fp32": right, "fp16": right, "int8": right}, {"int8": drop(0.0), "fp16": drop(0.0)}, {}, {})


@pytest.mark.parametrize("asked", ["int8", "fp16", "fp32"])
def test_where_fp32_is_at_chance_nothing_was_shown_whatever_was_asked_for(asked):
    found = decide(RunSettings(precision=asked), chance(np.zeros(100), np.arange(100) % 10, 10))
    assert (found.verdict, found.chosen, found.exit_code) == ("invalid", "fp32", 4)
    assert found.reason == (
        "FP32 top-1 is 10.00 %, near chance (10.00 %): the preprocessing is probably wrong (--preprocess), or the "
        "labels are not in the model's order (--classes)"
    )


def test_a_model_that_gives_the_number_of_a_class_is_at_chance_too():
    """It does not tell how many classes there are; the labels do."""
    labels = np.arange(100) % 4
    assert decide(RunSettings(), chance(np.full(100, 2), labels, None)).exit_code == 4
    assert decide(RunSettings(), chance(labels, labels, None)).exit_code == 0


def test_a_user_s_metric_judges_a_model_whose_top_1_is_at_chance():
    found = findings(metric=metric(("fp16", 0.0), ("int8", 0.0)))
    at_chance = chance(np.zeros(100), np.arange(100) % 10, 10).evaluations
    assert decide(RunSettings(), Findings(at_chance, {}, {}, {}, metric=found.metric)).verdict == "pass"


@pytest.mark.parametrize(
    ("predicted", "labels", "classes"),
    [([0, 1], None, 2), (None, None, None), ([0, 0], [0, 0], 1), (np.arange(50) % 10, np.arange(50) % 10, 10)],
)
def test_without_labels_or_a_second_class_there_is_no_chance_to_be_at(predicted, labels, classes):
    assert nothing_shown(evaluation(predicted, labels, classes)) == ""


@pytest.mark.parametrize(
    ("fidelity", "verdict", "chosen"),
    [
        ([output("y", 30.0)], "unlabelled", "int8"),
        ([output("y", 10.0)], "unlabelled", "int8"),
        ([output("y", 9.9)], "fail", "fp16"),
        ([output("boxes", 50.0), output("scores", 6.1)], "fail", "fp16"),
        ([output("y", 46.5, (4, 6, 3, 6.1), (0, 3, 4, 50.0))], "fail", "fp16"),
        ([], "unlabelled", "int8"),
    ],
)
def test_without_labels_a_build_whose_worst_output_is_below_the_floor_is_unfit(fidelity, verdict, chosen):
    found = decide(RunSettings(), findings(labelled=False, fidelity=fidelity))
    assert (found.verdict, found.chosen, found.exit_code) == (verdict, chosen, 0)
    assert ("INT8 is unfit" in found.reason) == (verdict == "fail")


def test_an_unfit_int8_without_an_fp16_leaves_fp32_with_exit_3():
    found = decide(RunSettings(), findings(failed={"fp16": "no"}, labelled=False, fidelity=[output("y", 3.0)]))
    assert (found.verdict, found.chosen, found.exit_code) == ("fail", "fp32", 3)


@pytest.mark.parametrize(
    ("fidelity", "verdict"),
    [
        ([output("logits", 5.0, is_scores=True)], "pass"),  # the labels know better
        ([output("logits", 30.0, is_scores=True), output("features", 30.0)], "pass"),
        ([output("logits", 30.0, is_scores=True), output("features", 5.0)], "fail"),  # of these they know nothing
    ],
)
def test_labels_judge_the_class_scores_and_the_floor_judges_the_rest(fidelity, verdict):
    assert decide(RunSettings(), findings({"int8": 0.0, "fp16": 0.0}, fidelity=fidelity)).verdict == verdict


def test_a_metric_judges_all_outputs():
    found = findings(metric=metric(("fp16", 0.0), ("int8", 0.0)), fidelity=[output("y", 3.0)])
    assert decide(RunSettings(), found).verdict == "pass"


def test_what_is_unfit_is_said_with_its_channels_and_what_hides_them():
    assert unfit("INT8", evaluation(fidelity=[output("y", 46.5, (4, 6, 3, 6.14), (0, 3, 4, 50.0))])) == (
        "INT8 is unfit: output 'y', channels 4 to 6, has an SQNR of 6.1 dB (46.5 dB over the whole output, which "
        "louder channels lead), below the floor of 10 dB"
    )
    assert unfit("INT8", evaluation(fidelity=[output("y", 6.14)])) == (
        "INT8 is unfit: output 'y' has an SQNR of 6.1 dB, below the floor of 10 dB"
    )


def test_images_without_labels_tell_the_agreement_with_its_interval_and_the_worst_output():
    fp32 = evaluation([0] * 50)
    told = closeness("INT8", fp32, evaluation([0] * 45 + [1] * 5, fidelity=[output("y", 31.0), output("z", 25.0)]))
    assert told == (  # Wilson's interval of 45 in 50
        "INT8 agrees with FP32 on 90.00 % (95 % CI 78.64 to 95.65) of 50 images; at worst, output 'z' has an SQNR of "
        "25.0 dB; without labels or a metric its accuracy drop is not known"
    )


def test_a_model_that_is_no_classifier_is_told_by_its_worst_output():
    told = closeness("the candidate", evaluation(), evaluation(fidelity=[output("y", 31.0)]), "the baseline")
    assert told.startswith("the candidate against the baseline: output 'y' has an SQNR of 31.0 dB; without labels")
    told = closeness("INT8", evaluation(), evaluation(fidelity=[output("y", math.inf)]))
    assert told.startswith("INT8 against FP32: output 'y' has no noise at all; without labels")
    assert closeness("INT8", evaluation(), None) == "without labels or a metric its accuracy drop is not known"
