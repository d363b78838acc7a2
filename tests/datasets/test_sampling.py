from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import DatasetError, sample_indices


@dataclass
class Rows:
    """The parts of a source that sampling uses."""

    labels: np.ndarray | None
    count: int

    def __len__(self):
        return self.count


def labelled(labels):
    return Rows(np.array(labels, np.int64), len(labels))


labels_lists = st.lists(st.integers(0, 6), min_size=1, max_size=120)


@given(labels_lists, st.integers(1, 150), st.integers(0, 2**32), st.booleans())
def test_random_draws_no_index_twice_and_the_number_asked_for(labels, num, seed, known):
    source = labelled(labels) if known else Rows(None, len(labels))
    found = sample_indices(source, num, seed=seed)
    assert found.dtype == np.int64
    assert len(found) == len(set(found.tolist())) == min(num, len(labels))
    assert set(found.tolist()) <= set(range(len(labels)))


@given(labels_lists, st.integers(1, 120), st.integers(0, 1000))
def test_random_keeps_the_proportions_of_classes(labels, num, seed):
    source = labelled(labels)
    found = Counter(source.labels[sample_indices(source, num, seed=seed)].tolist())
    num = min(num, len(labels))
    sizes = Counter(labels)
    if num >= len(sizes):
        assert set(found) == set(sizes)
    quotas = {label: num * size / len(labels) for label, size in sizes.items()}
    lifted = sum(1 for quota in quotas.values() if quota < 1)
    for label, quota in quotas.items():
        assert found[label] > quota - 1 - lifted
        assert found[label] < quota + 1


def test_largest_remainder_by_hand():
    # 10 of 7 + 5 + 4 = 16: quotas 4.375, 3.125, 2.5; floors 4 + 3 + 2 leave one, for the third.
    source = labelled([0] * 7 + [1] * 5 + [2] * 4)
    assert Counter(source.labels[sample_indices(source, 10)].tolist()) == {0: 4, 1: 3, 2: 3}


def test_rare_class_gets_one_of_the_largest():
    # 4 of 100: quotas 3.92, 0.04, 0.04; the large class gives up two.
    source = labelled([0] * 98 + [1] + [2])
    assert Counter(source.labels[sample_indices(source, 4)].tolist()) == {0: 2, 1: 1, 2: 1}


@given(labels_lists, st.integers(1, 120), st.integers(0, 1000))
def test_random_is_deterministic(labels, num, seed):
    first = sample_indices(labelled(labels), num, seed=seed)
    assert first.tolist() == sample_indices(labelled(labels), num, seed=seed).tolist()


def test_a_sample_stays_the_same_over_versions():
    # The smallest of the six raw numbers of PCG64(0), in hexadecimal as NumPy prints them, decide.
    raw = np.random.PCG64(0).random_raw(6).tolist()
    assert sample_indices(Rows(None, 6), 3).tolist() == sorted(range(6), key=raw.__getitem__)[:3]


def test_seeds_differ_and_classes_are_mixed():
    source = labelled([0] * 500 + [1] * 500)
    first, second = sample_indices(source, 100, seed=1), sample_indices(source, 100, seed=2)
    assert first.tolist() != second.tolist()
    # In shuffled order, 100 draws of two equal classes change class about 50 times; sorted by class, once.
    assert np.count_nonzero(np.diff(source.labels[first])) > 20


def test_uniform_without_labels():
    # Every one of 10 rows is drawn in half of the draws of 5: 500 of 1000, standard deviation 16.
    counts = Counter(i for seed in range(1000) for i in sample_indices(Rows(None, 10), 5, seed=seed).tolist())
    assert all(400 < counts[i] < 600 for i in range(10))


@pytest.mark.parametrize("num", [None, 5, 9])
def test_all_samples_in_the_order_of_the_sampling(num):
    source = labelled([0, 1, 0, 1, 1])
    assert sample_indices(source, num, sampling="first").tolist() == [0, 1, 2, 3, 4]
    shuffled = sample_indices(source, num).tolist()
    assert sorted(shuffled) == [0, 1, 2, 3, 4]
    assert len({tuple(sample_indices(source, num, seed=seed).tolist()) for seed in range(20)}) > 10


def test_first_takes_them_in_order_whatever_the_labels():
    assert sample_indices(labelled([1, 1, 1, 0]), 3, sampling="first", seed=5).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num": 0}, "number of images: expected 1 or more, found 0"),
        ({"num": 1, "seed": -1}, "seed: expected 0 or more, found -1"),
        ({"num": 1, "sampling": "last"}, "sampling: expected random or first, found 'last'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(DatasetError, match=message):
        sample_indices(Rows(None, 3), **arguments)
