import numpy as np
import pytest

from quant.evaluation.drop import agreement, paired_drop


def flags(both, lost, won, neither):
    """Baseline and other build with that many images in each cell."""
    baseline = np.array([True] * (both + lost) + [False] * (won + neither))
    other = np.array([True] * both + [False] * lost + [True] * won + [False] * neither)
    return baseline, other


def test_the_drop_by_hand():
    # 100 images, 5 lost, 2 won. p1 = 6/102, p2 = 3/102: 3/102 +- 1.95996 * sqrt((9/102 - (3/102)^2) / 102).
    drop = paired_drop(*flags(80, 5, 2, 13))
    assert (drop.points, drop.lost, drop.won) == (pytest.approx(3.0), 5, 2)
    assert drop.low == pytest.approx(2.941176 - 5.736269, abs=2e-3)
    assert drop.high == pytest.approx(2.941176 + 5.736269, abs=2e-3)


def test_no_flips_still_leave_doubt():
    # p1 = p2 = 1/102: +- 1.95996 * sqrt((2/102) / 102) = 2.7174 points.
    drop = paired_drop(*flags(90, 0, 0, 10))
    assert drop.points == 0
    assert (drop.low, drop.high) == (pytest.approx(-2.7174, abs=1e-3), pytest.approx(2.7174, abs=1e-3))


def test_a_better_build_has_a_negative_drop_and_the_mirrored_interval():
    worse, better = paired_drop(*flags(50, 8, 3, 20)), paired_drop(*flags(50, 8, 3, 20)[::-1])
    assert better.points == -worse.points
    assert (better.low, better.high) == (pytest.approx(-worse.high), pytest.approx(-worse.low))


@pytest.mark.parametrize("images", [1, 2, 5])
def test_few_images_stay_within_100_points(images):
    drop = paired_drop(*flags(0, images, 0, 0))
    assert drop.points == 100
    assert -100 <= drop.low < drop.high <= 100


@pytest.mark.parametrize(
    ("images", "lost", "won"), [(1000, 0.03, 0.02), (300, 0.05, 0.01), (2000, 0.10, 0.10), (10_000, 0.012, 0.010)]
)
def test_the_interval_covers_the_true_drop_19_times_of_20(images, lost, won):
    generator = np.random.default_rng(2012)
    covered = 0
    for _ in range(1000):
        kind = generator.random(images)
        baseline = (kind < lost) | (kind > 0.5)  # below `lost`: only the baseline is right; above 0.5: both are
        other = ((kind >= lost) & (kind < lost + won)) | (kind > 0.5)
        drop = paired_drop(baseline, other)
        covered += drop.low <= 100 * (lost - won) <= drop.high
    assert 930 <= covered <= 970


def test_agreement_is_the_share_of_equal_predictions():
    assert agreement(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 4])) == 75.0
