"""Counting from several threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import helper

from calib import EntropyCalibrator, Histogram, NonFiniteError
from calib.histograms.counting import Counts
from calib.histograms.first_batch import FirstBatchHistogram, largest_magnitude
from quant import collect_statistics


@pytest.mark.parametrize("threads", [1, 3])
def test_parts_counted_at_a_time_are_all_counted(random, threads):
    parts = [{name: random(500, 7, seed=10 * n + i) for i, name in enumerate("abcde")} for n in range(40)]
    counts = Counts({**dict.fromkeys("abcd", np.inf), "e": 0.5}, first_batch=False)
    with ThreadPoolExecutor(4) as pool, ThreadPoolExecutor(4) as helpers:
        list(pool.map(lambda part: counts.count(part, [""] * 500, helpers, threads), parts))
    for name in "abcde":
        expected = Histogram()
        expected.add(np.concatenate([part[name] for part in parts]))
        assert counts.histograms[name].whole().digest() == expected.digest()


def test_the_first_tensor_of_the_graph_is_named_though_the_largest_are_counted_first(random):
    counts = Counts(dict.fromkeys(("small", "large"), np.inf), first_batch=False)
    small, large = random(2, 3), random(2, 300)
    small[1, 0] = large[0, 0] = np.nan
    with (
        ThreadPoolExecutor(1) as helpers,
        pytest.raises(NonFiniteError, match=r"tensor 'small', image 'b'") as caught,
    ):
        counts.count({"small": small, "large": large}, ["a", "b"], helpers, 1)
    assert caught.value.index == 3


@pytest.mark.parametrize("held", [200, 1000, 1 << 30])
def test_batches_in_parts_are_the_batches_that_tensorrt_would_see(saved, elementwise, batch_of, random, held):
    """The first batch ends with its maximum, the second one doubles the range. The oracle adds whole batches."""
    x = random(12, 2, 3) / 10
    x[5, 1, 2], x[11, 1, 2] = 1, 1.5
    calibrator = EntropyCalibrator([batch_of(x=x[:6]), batch_of(x=x[6:], first=6)], match_tensorrt=True)
    collect_statistics(saved(elementwise()), calibrator, memory_limit=held)
    found = calibrator.statistics.first_batch
    for name, values in {"x": x, "abs": np.abs(x), "double": np.abs(x) * 2, "y": np.abs(x) * 2 + 1}.items():
        expected = FirstBatchHistogram()
        for batch in (values[:6], values[6:]):
            expected.start_batch()
            expected.add(batch, largest_magnitude(batch))
        assert found[name].limit == expected.limit, name
        np.testing.assert_array_equal(found[name].counts, expected.counts, err_msg=name)


@pytest.mark.parametrize("held", [60, 1 << 30])
def test_a_tensor_that_was_zero_so_far_gets_its_range_from_a_whole_batch(saved, graph_of, batch_of, random, held):
    """Each part of the second batch exceeds the ones before it. The oracle adds whole batches."""
    x = np.abs(random(12, 2, 3)) * np.arange(1, 13, dtype=np.float32).reshape(-1, 1, 1)
    x[:6] *= -1
    model = saved(graph_of([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 2, 3]}, {"y": ["N", 2, 3]}))
    calibrator = EntropyCalibrator([batch_of(x=x[:6]), batch_of(x=x[6:], first=6)], match_tensorrt=True)
    collect_statistics(model, calibrator, memory_limit=held)
    found, expected = calibrator.statistics.first_batch["y"], FirstBatchHistogram()
    expected.add(x[6:], largest_magnitude(x[6:]))
    assert found.limit == expected.limit == x.max()
    np.testing.assert_array_equal(found.counts, expected.counts)
