"""Vectors that are scores of classes, and those whose argmax says nothing."""

import numpy as np
import pytest

from quant.tasks.vectors.evidence import are_classes, are_of_length_one, flatness, is_embedding

RNG = np.random.default_rng(0)


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


LOGITS = RNG.normal(0, 1, (20, 10)) + 8 * np.eye(10)[RNG.integers(0, 10, 20)]


@pytest.mark.parametrize("name", ["logits", "y", "output0"])
def test_logits_are_classes(name):
    assert are_classes(name, LOGITS)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("y", unit(RNG.normal(0, 1, (20, 32)))),  # an embedding of length one
        ("embedding", RNG.normal(0, 3, (20, 32))),
        ("features", RNG.normal(0, 3, (20, 512))),
        ("y", RNG.uniform(0, 64, (20, 4))),  # coordinates
        ("coords", RNG.normal(0, 1, (20, 4))),
        ("y", RNG.normal(0, 0.1, (20, 128))),  # flat
    ],
)
def test_what_an_argmax_says_nothing_of(name, values):
    assert not are_classes(name, values)


def test_few_numbers_of_length_one_are_no_embedding():
    """A direction or a quaternion."""
    assert not is_embedding("y", unit(RNG.normal(0, 1, (20, 4))))
    assert is_embedding("y", unit(RNG.normal(0, 1, (20, 64))))
    assert not are_of_length_one(np.eye(10)[[1, 2]])  # probabilities that are sure


def test_flatness():
    assert flatness(np.zeros((3, 7))) == pytest.approx(1)
    assert flatness(np.array([[100.0, 0, 0]])) == pytest.approx(0, abs=1e-9)
    shares = np.array([0.5, 0.25, 0.25])
    assert flatness(np.log(shares)[None]) == pytest.approx(-(shares * np.log(shares)).sum() / np.log(3))
