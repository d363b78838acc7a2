"""Seconds by stage."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from quant.progress import Timings


def test_threads_add_to_the_same_stage():
    timings = Timings()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: timings.add("counting", 0.25), range(100)))
    assert timings.seconds() == {"counting": 25.0}


def test_stages_keep_their_order_and_count_failures_too():
    timings = Timings()
    with pytest.raises(ValueError, match="stop"), timings.of("evaluation"), timings.of("evaluation: fp32"):
        raise ValueError("stop")
    timings.add("build", 1.0)
    assert list(timings.seconds()) == ["evaluation", "evaluation: fp32", "build"]
    assert timings.seconds()["evaluation"] >= timings.seconds()["evaluation: fp32"] > 0
