"""Builds beside each other, and alone where memory was too little for that."""

import threading

import pytest

from calib.interrupts import stopped_by
from quant.cuda.device import OutOfDeviceMemoryError
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


class Memory:
    """Memory for builds that need so much each; counts what was tried and said."""

    def __init__(self, room, size):
        self.room, self.size, self.used, self.said = room, size, 0, []
        self.lock = threading.Lock()

    def build(self, work=lambda: None):
        size = self.size
        with self.lock:
            if self.used + size > self.room:
                raise OutOfDeviceMemoryError("full")
            self.used += size
        try:
            work()
            return size
        finally:
            with self.lock:
                self.used -= size

    def halve(self, error):
        if self.size == 1:
            raise ValueError(f"{error}: end other programs")
        self.size //= 2
        self.said.append(f"trying {self.size}")

    def alone(self):
        self.said.append("trying alone")


def test_a_build_that_fails_beside_another_is_done_alone_as_large_as_it_was(start):
    turns, memory, found = MemoryTurns(), Memory(room=12, size=8), []
    begun, go = threading.Event(), threading.Event()
    start(lambda: found.append(turns.done(lambda: memory.build(lambda: begun.set() or go.wait(LONG)), None, None)))
    assert begun.wait(LONG)
    second = start(lambda: found.append(turns.done(memory.build, memory.alone, memory.halve)))
    second.join(0.3)
    assert found == []  # it waits for the first
    go.set()
    second.join(LONG)
    assert found == [8, 8]
    assert memory.said == ["trying alone"]


def test_a_build_that_fails_alone_is_made_smaller_until_it_fits():
    memory = Memory(room=3, size=16)
    assert MemoryTurns().done(memory.build, memory.alone, memory.halve) == 2
    assert memory.said == ["trying 8", "trying 4", "trying 2"]


def test_one_that_never_fits_ends_in_the_error_of_what_makes_it_smaller_and_others_go_on():
    turns, memory = MemoryTurns(), Memory(room=0, size=2)
    with pytest.raises(ValueError, match="full: end other programs"):
        turns.done(memory.build, memory.alone, memory.halve)
    memory.room = 1
    assert turns.done(memory.build, memory.alone, memory.halve) == 1
