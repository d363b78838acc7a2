import numpy as np
import pytest

from quant.evaluation.drop import paired_drop
from quant.evaluation.sample_size import images_from_width, images_needed, tells


def drop_of(images, lost, won):
    baseline = np.array([True] * lost + [False] * (images - lost))
    other = np.array([False] * lost + [True] * won + [False] * (images - lost - won))
    return paired_drop(baseline, other)


@pytest.mark.parametrize(
    ("images", "lost", "won", "limit", "expected"),
    [
        (10_000, 12, 0, 1.0, True),  # 0.1 points, surely below
        (1000, 100, 0, 1.0, True),  # 10 points, surely above
        (100, 1, 0, 1.0, False),
        (100, 0, 0, 1.0, False),  # no flip, but so few images
    ],
)
def test_images_tell_when_the_interval_lies_on_one_side(images, lost, won, limit, expected):
    assert tells(drop_of(images, lost, won), limit) is expected


def test_no_flips_by_hand():
    # With a lost and a won image added: 0.01 >= 2.8016 * sqrt(2) / (n + 2) from n = 395 on; two digits: 400.
    assert images_needed(drop_of(100, 0, 0), 100, 1.0) == 400


def test_flips_by_hand():
    # Drop 2 points, limit 1: (1.95996 + 0.84162)^2 * (0.03 + 0.01 - 0.02^2) / 0.01^2 = 3108 for the plain interval.
    assert images_needed(drop_of(1000, 30, 10), 1000, 1.0) == pytest.approx(3108, rel=0.035)


def test_a_drop_at_the_limit_is_never_told():
    assert images_needed(drop_of(1000, 10, 0), 1000, 1.0) is None


def test_so_many_images_tell_four_times_of_five():
    lost, won, limit = 0.03, 0.01, 1.0
    needed = images_needed(drop_of(1000, 30, 10), 1000, limit)
    generator = np.random.default_rng(3)
    told = 0
    for _ in range(1000):
        kind = generator.random(needed)
        told += tells(paired_drop(kind < lost, (kind >= lost) & (kind < lost + won)), limit)
    assert 760 <= told <= 860


def test_an_average_s_images_by_hand():
    # The standard error of 100 images is 0.4 / 3.91993 = 0.10204. At n images, 0.10204 * sqrt(100 / n) * 2.8016 = 0.1
    # from n = 817.3 on.
    assert images_from_width(0.4, 0.1, 100) == images_from_width(0.4, -0.1, 100) == 820
    assert images_from_width(0.4, 0.0, 100) is None
