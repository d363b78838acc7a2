"""Pieces of work beside each other and in turn: results, errors, and how they are stopped."""

import sys
import threading
import time

import pytest

from calib.interrupts import heed_interrupt
from quant.jobs.overlap.pieces import Pieces

LONG = 120  # seconds after which a test has hung


def test_pieces_go_on_beside_each_other_and_wait_for_each_other():
    met = threading.Barrier(2, timeout=LONG)  # passed only if both are there at a time
    with Pieces(beside=True) as pieces:
        first = pieces.start(lambda: met.wait() >= 0)
        second = pieces.start(lambda: met.wait() >= 0 and first.result())
        assert second.result() is True


def test_in_turn_each_is_done_when_it_is_started():
    done = []
    with Pieces(beside=False) as pieces:
        first = pieces.start(lambda: done.append(threading.current_thread()))
        assert first.done
        pieces.start(lambda: done.append(threading.current_thread()))
    assert done == [threading.current_thread()] * 2


@pytest.mark.parametrize("beside", [True, False])
def test_an_error_is_raised_where_the_result_is_asked_for_and_nowhere_else(beside):
    def fail():
        raise ValueError("cannot be built")

    with Pieces(beside=beside) as pieces:
        bad, good = pieces.start(fail), pieces.start(lambda: 3)
        pieces.wait()
        assert (bad.done, good.result()) == (True, 3)
        for ask in (bad.result, bad.raise_error, bad.result):
            with pytest.raises(ValueError, match="cannot be built"):
                ask()
        good.raise_error()


def test_an_error_of_the_job_stops_its_pieces_and_waits_for_them():
    ended = []

    def work(running):
        running.set()
        try:
            for _ in range(100 * LONG):
                heed_interrupt()
                time.sleep(0.01)
        finally:
            ended.append(running)

    begun = [threading.Event(), threading.Event()]
    with pytest.raises(KeyboardInterrupt, match="pressed"), Pieces(beside=True) as pieces:
        started = [pieces.start(lambda event=event: work(event)) for event in begun]
        assert all(event.wait(LONG) for event in begun)
        raise KeyboardInterrupt("pressed")
    assert sorted(map(id, ended)) == sorted(map(id, begun))
    for piece in started:
        with pytest.raises(KeyboardInterrupt):
            piece.result()


def test_a_piece_that_is_stopped_may_end_its_work_first():
    """As a build of TensorRT 8.6 must: what it works on may be freed only then."""
    told, ended, begun = threading.Event(), [], threading.Event()

    def build():
        begun.set()
        try:
            while True:
                heed_interrupt()
                time.sleep(0.01)
        except KeyboardInterrupt:
            told.set()
            heed_interrupt()  # is raised once
            ended.append("built")
            raise

    with pytest.raises(ValueError, match="no images"), Pieces(beside=True) as pieces:
        pieces.start(build)
        assert begun.wait(LONG)
        raise ValueError("no images")
    assert told.is_set()
    assert ended == ["built"]


def test_ctrl_c_in_turn_is_not_kept_for_later():
    def press():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Pieces(beside=False) as pieces:
        pieces.start(press)
        pytest.fail("it goes on")


def test_without_an_error_the_end_waits_for_what_still_runs():
    done = []
    with Pieces(beside=True) as pieces:
        pieces.start(lambda: (time.sleep(0.05), done.append(1)))
    assert done == [1]


def test_threads_take_turns_more_often_while_pieces_go_on():
    """TensorRT writes its log through Python: thousands of lines in a build, each of which waits for a turn."""
    usual = sys.getswitchinterval()
    with pytest.raises(ValueError, match="ended"), Pieces(beside=True):
        assert sys.getswitchinterval() < usual / 10
        raise ValueError("ended")
    assert sys.getswitchinterval() == usual
    with Pieces(beside=False):
        assert sys.getswitchinterval() == usual
