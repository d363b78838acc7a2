"""Builds beside each other, and alone where memory was too little for that."""

import threading

import pytest

from calib.interrupts import stopped_by
from quant.tensorrt.building.memory_turns import MemoryTurns

LONG = 120  # seconds after which a test has hung


@pytest.fixture
def start():
    """Runs functions in threads, which have ended when the test has."""
    threads = []

    def run(work):
        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()
        return threads[-1]

    yield run
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


def test_a_build_knows_whether_others_ran_beside_it(start):
    turns, begun, go = MemoryTurns(), threading.Event(), threading.Event()
    with turns.beside() as in_company:
        assert not in_company()

        def other():
            with turns.beside() as company:
                assert company()
                begun.set()
                go.wait(LONG)

        start(other)
        assert begun.wait(LONG)
        assert in_company()
        go.set()


def test_alone_waits_for_the_others_and_keeps_new_ones_waiting(start):
    turns, order = MemoryTurns(), []
    inside, go = threading.Event(), threading.Event()

    def alone():
        with turns.alone():
            order.append("alone begins")
            inside.set()
            go.wait(LONG)
            order.append("alone ends")

    def late():
        inside.wait(LONG)
        with turns.beside():
            order.append("late")

    with turns.beside():
        start(alone)
        assert not inside.wait(0.3)
        order.append("first ends")
    thread = start(late)
    assert inside.wait(LONG)
    go.set()
    thread.join(LONG)
    assert order == ["first ends", "alone begins", "alone ends", "late"]


def test_two_that_need_to_be_alone_take_turns(start):
    turns, running, most = MemoryTurns(), [], []

    def work():
        for _ in range(20):
            with turns.alone():
                running.append(1)
                most.append(len(running))
                running.pop()

    threads = [start(work) for _ in range(3)]
    for thread in threads:
        thread.join(LONG)
    assert most == [1] * 60


def test_one_that_waits_can_be_stopped(start):
    turns, stop, told = MemoryTurns(), threading.Event(), []

    def wait():
        with stopped_by(stop):
            try:
                with turns.alone():
                    pass
            except KeyboardInterrupt:
                told.append("stopped")

    with turns.beside():
        thread = start(wait)
        stop.set()
        thread.join(LONG)
        assert told == ["stopped"]
        with turns.beside():  # whoever came after it is not kept waiting
            pass
