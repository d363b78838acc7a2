"""Builds evaluated one after the other: what evaluating them together gives."""

from dataclasses import fields

import numpy as np
import pytest

from quant.errors import QuantError
from quant.evaluation.accuracy import evaluate, reader_from_batch
from quant.evaluation.one_by_one import evaluate_one_by_one


class Linear:
    """Logits of three classes; counts its runs."""

    def __init__(self, noise):
        self._weights = np.random.default_rng(0).normal(size=(8, 3)) + noise * np.random.default_rng(1).normal(
            size=(8, 3)
        )
        self.runs = 0

    def run(self, inputs):
        self.runs += 1
        return [(inputs["x"] @ self._weights).astype(np.float32)]


@pytest.fixture
def batches(batch_of):
    """Three batches, of four, four and two images."""
    random = np.random.default_rng(2)
    sizes = ((0, 4), (4, 4), (8, 2))
    return [
        batch_of(first, labels=random.integers(0, 3, size), x=random.normal(size=(size, 8)).astype(np.float32))
        for first, size in sizes
    ]


def builds():
    return {"fp32": Linear(0), "fp16": Linear(0.01), "int8": Linear(0.5)}


def test_each_build_gets_the_same_evaluation(batches):
    reader = reader_from_batch(None, Linear(0), batches[0])
    deployed = {"int8": Linear(0.6)}
    together = evaluate(builds(), "fp32", batches, reader=reader, deployed=deployed)
    done, seen, after, ran = [], [], [], builds()
    found = evaluate_one_by_one(
        ran,
        "fp32",
        lambda: iter(batches),
        done.append,
        lambda name, outputs, batch, baseline: seen.append((name, len(outputs), len(batch.names))),
        reader=reader,
        deployed=deployed,
        after=after.append,
    )
    assert list(found) == list(together) == ["fp32", "fp16", "int8"]
    for name, expected in together.items():
        for field in fields(expected):
            if field.name not in ("deployed", "written"):
                np.testing.assert_equal(getattr(found[name], field.name), getattr(expected, field.name))
    assert found["int8"].deployed.sqnr_db == together["int8"].deployed.sqnr_db
    assert found["int8"].written.sqnr_db == together["int8"].written.sqnr_db
    assert {name: build.runs for name, build in ran.items()} == {"fp32": 3, "fp16": 3, "int8": 3}
    assert done == [4, 4, 2] * 3
    assert seen == [(name, 1, size) for name in ran for size in (4, 4, 2)]
    assert after == ["fp32", "fp16", "int8"]


def test_images_that_change_between_passes_are_an_error(batches, batch_of):
    reader = reader_from_batch(None, Linear(0), batches[0])
    other = batch_of(0, labels=batches[0].labels, x=batches[0].inputs["x"] + 1)
    passes = iter([batches, [other, *batches[1:]]])
    with pytest.raises(QuantError, match=r"^the images: expected the same in each pass, found others"):
        evaluate_one_by_one(builds(), "fp32", passes.__next__, reader=reader, deployed={})


def test_more_images_than_in_the_first_pass_are_an_error_too(batches):
    reader = reader_from_batch(None, Linear(0), batches[0])
    passes = iter([batches[:2], batches])
    with pytest.raises(QuantError, match="expected the same in each pass"):
        evaluate_one_by_one(builds(), "fp32", passes.__next__, reader=reader, deployed={})
