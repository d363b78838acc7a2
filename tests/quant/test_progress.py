"""Seconds by stage."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from quant.progress import RecordingConsole, Timings


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


def test_stages_beside_each_other_have_their_moments():
    timings = Timings()
    with timings.of("build"):
        with timings.of("evaluation"):
            pass
        with timings.of("evaluation"):
            pass
    timings.add("counting", 1.0)
    spans = timings.spans()
    assert list(spans) == ["build", "evaluation"]  # of what was only added, nobody knows when it was
    assert 0 <= spans["build"][0] <= spans["evaluation"][0] <= spans["evaluation"][1] <= spans["build"][1]
    assert spans["evaluation"][1] - spans["evaluation"][0] >= timings.seconds()["evaluation"]


def test_warnings_of_later_work_stand_where_it_was_begun():
    shown = RecordingConsole()
    console = RecordingConsole(shown)
    console.warn("first")
    place = console.later()
    console.warn("third")
    place.warn("second")
    assert console.warnings == ["first", "second", "third"]
    assert shown.warnings == ["first", "third", "second"]  # as they were said


def test_work_of_another_process_counts_by_its_own_clock():
    timings = Timings()
    now = time.perf_counter()
    timings.between("build", now + 1, now + 3)
    timings.between("build", now + 2, now + 5)
    assert timings.seconds()["build"] == pytest.approx(5)
    start, end = timings.spans()["build"]
    assert end - start == pytest.approx(4)
    assert start >= 1
