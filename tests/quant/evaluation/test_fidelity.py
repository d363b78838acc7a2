"""Noise in outputs, by output and by channels of one magnitude: worked out by hand, or of arrays whose noise is set."""

import math

import numpy as np
import pytest

from quant.evaluation.fidelity import Noise, channel_axis, channels_text, sqnr_db, worst_output
from quant.evaluation.outputs import OutputLayout

LAYOUT = OutputLayout("y", 0)


def fidelity_of(mine, baseline, *, whole=False, batch=1000):
    noise = Noise(LAYOUT, whole=whole)
    for start in range(0, len(baseline), batch):
        noise.add(np.asarray(mine)[start : start + batch], np.asarray(baseline)[start : start + batch])
    return noise.result()


def groups_of(found):
    return [(group.first, group.last, group.channels) for group in found.groups]


@pytest.fixture
def detections():
    """[4, 4 + 3, 50]: boxes in pixels, then scores of three classes."""
    random = np.random.default_rng(0)
    return np.concatenate([random.uniform(10, 640, (4, 4, 50)), random.uniform(0, 1, (4, 3, 50)) ** 4], axis=1)


def test_signal_and_noise_by_hand():
    assert sqnr_db(100, 1) == pytest.approx(20)
    assert sqnr_db(5, 0) == math.inf
    assert sqnr_db(0, 0) == math.inf
    assert sqnr_db(0, 1) == sqnr_db(1, math.inf) == -100


def test_scores_that_vanish_are_not_hidden_by_boxes_in_pixels(detections):
    found = detections.copy()
    found[:, 4:] = 0
    result = fidelity_of(found, detections)
    assert result.sqnr_db > 50
    assert groups_of(result) == [(4, 6, 3), (0, 3, 4)]
    assert (result.groups[0].sqnr_db, result.groups[1].sqnr_db) == (pytest.approx(0), math.inf)
    assert result.floor_db == pytest.approx(0)
    assert 4 <= result.worst_channel <= 6


def test_candidates_first_or_channels_first_the_groups_are_the_same(detections):
    found = detections * np.array([1, 1, 1, 1, 1.5, 1.5, 1.5])[None, :, None]
    turned = fidelity_of(found.transpose(0, 2, 1), detections.transpose(0, 2, 1))
    assert groups_of(turned) == groups_of(fidelity_of(found, detections)) == [(4, 6, 3), (0, 3, 4)]
    assert turned.floor_db == pytest.approx(10 * math.log10(4))  # half of each score is noise


def test_scores_that_are_mostly_small_are_a_group_beside_boxes_from_0_to_1():
    boxes, scores = np.random.default_rng(2).uniform(0.2, 0.8, (4, 4, 900)), np.full((4, 3, 900), 1e-4)
    scores[:, :, :2] = 0.9  # two candidates are detections
    baseline = np.concatenate([boxes, scores], axis=1)
    found = np.concatenate([boxes, 0 * scores], axis=1)
    result = fidelity_of(found, baseline)
    assert groups_of(result) == [(4, 6, 3), (0, 3, 4)]
    assert result.sqnr_db > 20
    assert result.floor_db == pytest.approx(0)


def test_batches_of_any_size_sum_to_the_same(detections):
    found = detections + np.random.default_rng(1).normal(size=detections.shape)
    whole, single = (fidelity_of(found, detections, batch=size) for size in (4, 1))
    assert groups_of(whole) == groups_of(single)
    assert whole.floor_db == pytest.approx(single.floor_db)


def noisy(baseline, share, seed=9):
    """The array with noise of a share of the root mean square of all of it."""
    noise = np.random.default_rng(seed).normal(size=baseline.shape)
    return baseline + noise * share * np.sqrt(np.square(baseline).mean())


def normal(*shape):
    return np.random.default_rng(3).normal(size=shape)


def multi_label(never):
    """Sigmoids of 20 labels for 64 images, of which some are never there."""
    return 1 / (1 + np.exp(-(2 * normal(64, 20) - np.where(np.arange(20) < never, 9, 0))))


def with_dead_features(channels, dead, factor):
    features = normal(64, channels)
    features[:, :dead] *= factor
    return features


@pytest.mark.parametrize(
    "baseline",
    [
        normal(8, 5, 16, 16),  # a map of classes
        np.abs(normal(8, 1, 16, 16)),  # depth
        normal(64, 128),  # an embedding
        with_dead_features(128, 1, 0.01),
        with_dead_features(512, 6, 0.002),
        np.random.default_rng(4).uniform(0, 640, (64, 34)),  # points in pixels
        np.random.default_rng(4).uniform([18, 140, 40], [90, 200, 120], (64, 3)),  # age, height, weight
        multi_label(0),
        multi_label(2),
        multi_label(15),
    ],
    ids=["map", "depth", "embedding", "dead", "six dead", "points", "person", "labels", "rare labels", "few labels"],
)
def test_a_hundredth_of_noise_is_no_alarm_in_ordinary_outputs(baseline):
    result = fidelity_of(noisy(baseline, 0.05), baseline)
    assert result.sqnr_db == pytest.approx(26, abs=1)
    assert result.floor_db > 20


@pytest.mark.parametrize("channels", [2, 5, 39])
def test_one_small_quantity_beside_large_ones_is_judged_alone(channels):
    baseline = np.random.default_rng(5).uniform(10, 600, (64, channels))
    baseline[:, -1] = np.linspace(0, 1, 64)
    result = fidelity_of(np.round(baseline / 8) * 8, baseline)
    assert groups_of(result)[0] == (channels - 1, channels - 1, 1)
    assert result.floor_db == pytest.approx(0)
    assert result.sqnr_db > 35


def test_one_loud_channel_of_many_does_not_hide_the_others():
    baseline = normal(64, 128)
    baseline[:, 5] *= 100
    found = baseline + normal(64, 128)[::-1] * 0.5
    result = fidelity_of(found, baseline)
    assert groups_of(result) == [(0, 127, 127), (5, 5, 1)]
    assert result.floor_db == pytest.approx(6, abs=0.5)  # noise of half the signal
    assert result.sqnr_db > 20


def test_channels_that_carry_nothing_are_not_judged():
    baseline = normal(64, 3)
    baseline[:, 1] *= 1e-6
    result = fidelity_of(baseline + 1e-3, baseline)
    assert result.groups == ()
    assert result.worst_channel != 1
    assert result.floor_db > 50


def test_of_class_scores_only_the_whole_counts():
    baseline = normal(64, 4) * np.array([1, 1, 1, 0.01])
    found = baseline + 0.02
    assert fidelity_of(found, baseline).floor_db < 0
    scores = fidelity_of(found, baseline, whole=True)
    assert (scores.groups, scores.is_scores) == ((), True)
    assert scores.floor_db == scores.sqnr_db > 30


def test_probabilities_are_judged_as_a_whole_with_classes_on_any_axis():
    pixels = np.exp(6 * normal(4, 5, 8, 8))
    pixels /= pixels.sum(axis=1, keepdims=True)
    for baseline in (pixels, pixels.transpose(0, 2, 3, 1)):
        result = fidelity_of(np.round(baseline * 127) / 127, baseline)
        assert (result.groups, result.worst_channel) == ((), None)
        assert result.floor_db == result.sqnr_db > 30


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((8,), 0),
        ((8, 5), 1),
        ((8, 84, 8400), 1),
        ((8, 25200, 85), 2),
        ((8, 17, 3), 2),
        ((8, 21, 64, 64), 1),
        ((8, 64, 64, 21), 3),
    ],
)
def test_the_channels_are_on_the_axis_where_exporters_put_them(shape, axis):
    assert channel_axis(np.broadcast_to(np.float32(0.3), shape)) == axis


def test_whole_numbers_have_no_channels():
    assert channel_axis(np.zeros((8, 5), np.int64)) == 0


def test_the_worst_output_is_that_with_the_worst_part(detections):
    killed = detections.copy()
    killed[:, 4:] = 0
    good, bad = fidelity_of(noisy(normal(9, 4), 0.1), normal(9, 4)), fidelity_of(killed, detections)
    assert bad.sqnr_db > good.sqnr_db
    assert worst_output([good, bad]) is bad
    assert worst_output([]) is None


@pytest.mark.parametrize(
    ("group", "text"),
    [((4, 4, 1), "channel 4"), ((4, 6, 3), "channels 4 to 6"), ((0, 127, 127), "127 channels from 0 to 127")],
)
def test_a_group_says_whether_its_channels_are_neighbours(group, text):
    assert channels_text(*group) == text
