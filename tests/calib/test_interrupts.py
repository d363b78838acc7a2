"""Ctrl-C is held back while a library that calls back is working, and is never lost."""

import contextlib
import os
import signal
import sys
import threading
import time

import pytest

from calib.interrupts import heed_interrupt, interrupts_deferred, interrupts_noted, stop_if_interrupted


def press():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def terminal():
    """Restore Ctrl-C as in a terminal: a background job inherits it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_it_is_raised_at_the_end_and_not_before():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_deferred():
        press()
        done.append("the rest of the work")
    assert done
    heed_interrupt()  # once is enough


def test_waiting_work_heeds_it_earlier():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_deferred():
        press()
        heed_interrupt()
        done.append("more")
    assert not done


def test_an_error_of_the_work_does_not_hide_it():
    with pytest.raises(KeyboardInterrupt), interrupts_deferred():
        press()
        raise ValueError


def test_without_one_nothing_is_raised_and_errors_pass():
    with interrupts_deferred():
        pass
    with pytest.raises(ValueError, match="of the work"), interrupts_deferred():
        raise ValueError("of the work")


def test_work_within_work_leaves_it_to_the_outer_one():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_deferred():
        with interrupts_deferred():
            press()
        done.append("outer")
    assert done


def test_a_handler_of_the_program_and_other_threads_are_left_alone():
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    with interrupts_deferred():
        press()
        assert seen == [signal.SIGINT]
    signal.signal(signal.SIGINT, before)

    def work():
        with interrupts_deferred():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen[-1] is signal.default_int_handler


class Dropping:
    """Something whose end is reported to Python code that cannot raise."""

    def __del__(self):
        press()
        time.sleep(0)


def test_one_that_was_dropped_is_noted_without_a_word_and_heeded_where_it_counts(capfd):
    with interrupts_noted() as interrupts:
        Dropping()
        assert interrupts.pressed
        heed_interrupt()  # waiting work looks only for new ones
        with pytest.raises(KeyboardInterrupt):
            stop_if_interrupted()
        with pytest.raises(KeyboardInterrupt):
            stop_if_interrupted()
    stop_if_interrupted()  # the next command begins anew
    assert capfd.readouterr() == ("", "")


def test_each_deferred_one_is_raised_once_in_waiting_work():
    """A build that cannot be stopped is waited for after the first Ctrl-C, until a second one."""
    with interrupts_noted(), contextlib.suppress(KeyboardInterrupt), interrupts_deferred():
        press()
        with pytest.raises(KeyboardInterrupt):
            heed_interrupt()
        heed_interrupt()
        press()
        with pytest.raises(KeyboardInterrupt):
            heed_interrupt()


def test_other_errors_of_finalizers_are_still_told(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: told.append(str(dropped.exc_value)))

    class Failing:
        def __del__(self):
            raise ValueError("in a finalizer")

    with interrupts_noted():
        Failing()
        Dropping()
    assert told == ["in a finalizer"]


def test_noting_leaves_a_handler_of_the_program_alone():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts_noted():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, before)
