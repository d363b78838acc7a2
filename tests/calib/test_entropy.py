"""The search against its definition, written out bin by bin in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib import Entropy, Histogram
from calib.entropy import (
    LEVELS,
    MIN_KEPT,
    SEARCH_BINS,
    _best_candidate,
    entropy_amax_from_counts,
    entropy_amax_from_fine_counts,
)


def divergence(counts, i, levels):
    """KL(P || Q) of candidate i by the definition in `calib.entropy`; None where Q is empty."""
    kept, tail = counts[:i], sum(counts[i:])
    if not sum(kept):
        return None
    if tail and not kept[-1]:
        return math.inf
    members = [[j for j in range(i) if levels * j // i == level] for level in range(levels)]
    q = [0.0] * i
    for level in members:
        filled = [j for j in level if kept[j]]
        for j in filled:
            q[j] = sum(kept[k] for k in level) / len(filled)
    p = [float(c) for c in kept]
    p[-1] += tail
    return sum(a / sum(p) * math.log(a / sum(p) / (b / sum(q))) for a, b in zip(p, q, strict=True) if a)


def brute_force(counts, levels, min_kept):
    """The best candidate of a short histogram, the largest among equals."""
    counts = [counts[1], *counts[1:]]
    found = {}
    for i in range(levels, len(counts) + 1):
        if sum(c > 0 for c in counts[:i]) > 1 and sum(counts[:i]) >= min_kept * sum(counts):
            value = divergence(counts, i, levels)
            if value is not None and math.isfinite(value):
                found[i] = value
    return max(
        (i for i in found if found[i] <= min(found.values()) + 1e-12), default=len(counts) if any(counts) else -1
    )


count = st.one_of(st.just(0), st.integers(1, 50), st.integers(1, 10**9))


@given(st.lists(count, min_size=12, max_size=60), st.integers(2, 8), st.sampled_from([0.0, 0.5, 0.95]))
@settings(max_examples=300)
def test_the_search_picks_what_the_definition_picks(counts, levels, min_kept):
    found = _best_candidate(np.array(counts, np.int64), levels, min_kept)
    assert found == brute_force(counts, levels, min_kept)


@pytest.mark.parametrize("seed", range(3))
def test_the_search_picks_what_the_definition_picks_at_full_size(seed):
    rng = np.random.default_rng(seed)
    values = np.abs(rng.standard_t(3, 20_000)) * rng.choice([1.0, 0.2], 20_000)
    counts = np.histogram(values, SEARCH_BINS, (0, values.max()))[0]
    level_of = {i: LEVELS * np.arange(i) // i for i in range(LEVELS, SEARCH_BINS + 1)}
    searched = counts.astype(float)
    searched[0] = searched[1]
    results = {}
    for i, level in level_of.items():
        kept = searched[:i]
        p = kept.copy()
        p[-1] += searched[i:].sum()
        if p[-1] and not kept[-1]:
            continue
        filled = np.bincount(level, kept > 0, LEVELS)
        q = np.where(kept > 0, (np.bincount(level, kept, LEVELS) / np.maximum(filled, 1))[level], 0)
        some = p > 0
        results[i] = np.sum(p[some] / p.sum() * np.log(p[some] / p.sum() / (q[some] / q.sum())))
    expected = max(i for i in results if results[i] <= min(results.values()) + 1e-12)
    assert entropy_amax_from_counts(counts, 0.25) == (expected + 0.5) * 0.25


def test_few_values_keep_the_largest():
    # 16 spikes: full range has no divergence, and neither has a range that keeps the first spike alone.
    counts = np.zeros(SEARCH_BINS, np.int64)
    counts[np.arange(1, 17) * 128 - 1] = 1000
    assert entropy_amax_from_counts(counts, 1.0) == SEARCH_BINS + 0.5


def test_a_gate_is_not_clipped_to_its_smallest_value():
    # Sigmoid gates lie in a narrow band far from zero; keeping one occupied bin alone has no divergence at all.
    histogram = Histogram()
    histogram.add(np.random.default_rng(0).uniform(0.3, 0.7, 100_000).astype(np.float32))
    assert Entropy().amax(histogram) > 0.65


def test_outliers_are_clipped_and_most_values_kept():
    rng = np.random.default_rng(0)
    histogram = Histogram()
    values = rng.standard_normal(200_000).astype(np.float32)
    values[:20] *= 30
    histogram.add(values)
    amax = Entropy().amax(histogram)
    assert amax < histogram.abs_max / 4
    assert (np.abs(values) <= amax).mean() >= MIN_KEPT


def test_a_tensor_of_zeros_has_a_positive_amax():
    histogram = Histogram()
    histogram.add(np.zeros(10, np.float32))
    assert Entropy().amax(histogram) == 1.0
    assert entropy_amax_from_fine_counts(np.zeros(64, np.int64), 1.0) == 0.0


@given(st.integers(-20, 20))
@settings(max_examples=20)
def test_a_power_of_two_scales_the_answer_exactly(exponent):
    values = np.random.default_rng(7).standard_normal(5000).astype(np.float32)
    plain, scaled = Histogram(), Histogram()
    plain.add(values)
    scaled.add(values * np.float32(2.0**exponent))
    assert Entropy().amax(scaled) == Entropy().amax(plain) * 2.0**exponent


def test_a_single_bin_that_holds_nearly_everything_is_no_candidate():
    counts = np.zeros(SEARCH_BINS, np.int64)
    counts[307] = 990_000  # 99 % of the values are equal
    counts[1024:] = 10
    assert entropy_amax_from_counts(counts, 1.0) > 1024  # not 308.5, where P = Q


def test_a_constant_keeps_its_whole_range():
    counts = np.zeros(SEARCH_BINS, np.int64)
    counts[SEARCH_BINS - 1] = 5
    assert entropy_amax_from_counts(counts, 0.7 / SEARCH_BINS) == pytest.approx(0.7 * 2048.5 / 2048)
