"""Builds that share the GPU's memory: beside each other, or alone where it was too little for that."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from calib.interrupts import heed_interrupt
from quant.cuda.device import OutOfDeviceMemoryError

_Result = TypeVar("_Result")

_LOOK_SECONDS = 0.2  # a thread that waits looks so often whether it is to stop


class MemoryTurns:
    """Tells builds when they may run; any number run beside each other, but one that needs to be alone is alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._alone = False
        self._started = 0

    def done(
        self,
        attempt: Callable[[], _Result],
        told: Callable[[], None],
        smaller: Callable[[OutOfDeviceMemoryError], None],
    ) -> _Result:
        """Do a build beside others; where that takes too much memory, alone; and alone with less, until it fits.

        Args:
            attempt: The build.
            told: Says that it is done again because others ran beside it.
            smaller: Makes it need less, while no other build runs, or raises an error where it cannot.

        Raises:
            KeyboardInterrupt: The thread was asked to stop while it waited.
        """
        with self.beside() as in_company:
            try:
                return attempt()
            except OutOfDeviceMemoryError as error:
                reason, crowded = error, in_company()
        with self.alone():
            if crowded:
                told()
            else:
                smaller(reason)
            while True:
                try:
                    return attempt()
                except OutOfDeviceMemoryError as error:
                    smaller(error)

    @contextlib.contextmanager
    def beside(self) -> Iterator[Callable[[], bool]]:
        """For a build that others may run beside; gives what tells whether any did so far.

        Raises:
            KeyboardInterrupt: The thread was asked to stop while it waited.
        """
        with self._changed:
            self._wait(lambda: not self._alone)
            company = self._running > 0
            self._running += 1
            self._started += 1
            before = self._started
        try:
            yield lambda: company or self._started > before
        finally:
            self._end()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """For a build beside which no other runs: it begins when the others have ended.

        Raises:
            KeyboardInterrupt: The thread was asked to stop while it waited.
        """
        with self._changed:
            self._wait(lambda: not self._alone)
            self._alone = True  # no other begins
            try:
                self._wait(lambda: not self._running)
            except BaseException:
                self._alone = False
                raise
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
            self._end()

    def _wait(self, free: Callable[[], bool]) -> None:
        while not free():
            self._changed.wait(_LOOK_SECONDS)
            heed_interrupt()

    def _end(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()
