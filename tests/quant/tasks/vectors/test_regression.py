"""Errors of numbers, worked out by hand, and answers that are no numbers."""

import json

import numpy as np
import pytest

from datasets import Batch
from quant.tasks.vectors.regression import RegressionRecorder, constant_error
from quant.tasks.vectors.vector_head import VectorHead

LABELS = np.array([1.0, 2, 3, 10])


def recorded(answers, labels=LABELS):
    recorder = RegressionRecorder(VectorHead(0, "y", 0, 1), labels)
    first = np.array(answers["fp32"], np.float32)[:, None]
    for build, values in answers.items():
        batch = Batch({}, np.arange(4), ("a", "b", "c", "d"), labels)
        recorder.observe(build, [np.array(values, np.float32)[:, None]], batch, [first])
    return recorder


def test_errors_against_labels():
    """The median of the labels is 2.5, from which they are 1.5, 0.5, 0.5 and 7.5 away: 2.5 on average."""
    recorder = recorded({"fp32": [1, 2, 3, 9], "int8": [1.5, 2, 3, 8]})
    assert constant_error(LABELS[:, None]) == 2.5
    assert (recorder.score("fp32"), recorder.score("int8")) == (0.25, 0.625)
    section = recorder.section("fp32", seed=0, max_drop=2.0)
    row = section["builds"][1]
    assert row["drop"] == pytest.approx(0.375) and row["drop_ci95"][0] <= 0.375 <= row["drop_ci95"][1]
    assert section["allowed_drop"] == pytest.approx(0.05)
    assert row["share"] == pytest.approx(25)
    assert row["rms"] == pytest.approx(np.sqrt((0.25 + 4) / 4), abs=1e-6)
    assert section["scores"]["worst"]["int8"][0] == {"file": "d", "value": 2.0}


def test_differences_from_fp32():
    recorder = recorded({"fp32": [1, 2, 3, 4], "int8": [1, 2, 3, 5]}, None)
    row = recorder.section("fp32", seed=0, max_drop=1.0)["builds"][1]
    assert row["score"] == 0.25 and not row["fit"]  # a quarter of the spread of 1
    assert row["agreement_ci95"][0] <= 0.25 <= row["agreement_ci95"][1]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_build_whose_answers_are_no_numbers_loses_beyond_doubt(broken):
    """As an FP16 build does that overflows; the report must be written all the same."""
    recorder = recorded({"fp32": [1, 2, 3, 9], "fp16": [1, 2, broken, 9]})
    section = recorder.section("fp32", seed=0, max_drop=1.0)
    assert section["builds"][1]["drop"] > 1e9
    json.dumps(section, allow_nan=False)


def test_a_constant_shows_nothing():
    assert (
        "always answering the median 2.5"
        in recorded({"fp32": [2, 2, 2, 2]}).section("fp32", seed=0, max_drop=1.0)["nothing_shown"]
    )
