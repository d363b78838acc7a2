"""TensorRT's log while it works: kept for error messages, never printed."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from quant.tensorrt.bindings import TensorRT

_MOST_LINES = 2000  # in one section: a build that falls back to float logs a line for each tensor
LAYERS = "Layers:\nName: "  # how TensorRT for RTX begins what it says of an engine's layers


@dataclass
class LogSection:
    """What TensorRT logged during one piece of work.

    Attributes:
        errors: Errors in order.
        warnings: Warnings in order.
        threads: The threads that do this work.
        layers: What a builder said of the engine's layers, as it said it; empty if it did not.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    layers: str = ""
    threads: set[int] = field(default_factory=set)

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """What this thread does is part of the work."""
        thread = threading.get_ident()
        self.threads.add(thread)
        try:
            yield
        finally:
            self.threads.discard(thread)  # the number may become another thread's

    def reason(self) -> str:
        """The first error, which names the cause (later ones follow from it), in TensorRT's own words."""
        return self.errors[0] if self.errors else "it gives no reason"

    @property
    def out_of_memory(self) -> bool:
        """Whether the GPU ran out of memory."""
        said = " ".join([*self.errors, *self.warnings[-20:]]).lower()
        return bool(self.errors) and any(
            words in said for words in ("out of memory", "outofmemory", "memoryallocation")
        )


class _Sections:
    """The open sections, to which the logger writes."""

    def __init__(self) -> None:
        self.open: tuple[LogSection, ...] = ()
        self._lock = threading.Lock()

    def begin(self, section: LogSection) -> None:
        with self._lock:
            self.open = (*self.open, section)

    def end(self, section: LogSection) -> None:
        with self._lock:
            self.open = tuple(other for other in self.open if other is not section)

    def add(self, text: str, *, is_error: bool) -> None:
        """Write to the sections of this thread; to all if it has none: TensorRT's own threads do not say for whom."""
        line = " ".join(text.split())
        for section in self._of_this_thread():
            lines = section.errors if is_error else section.warnings
            if len(lines) < _MOST_LINES:
                lines.append(line)

    def tell_layers(self, text: str) -> None:
        """Keep what a builder says of an engine's layers, for the same sections."""
        for section in self._of_this_thread():
            section.layers = text

    def _of_this_thread(self) -> Sequence[LogSection]:
        sections, thread = self.open, threading.get_ident()
        return [section for section in sections if thread in section.threads] or sections


_SECTIONS = _Sections()


@functools.cache
def logger(tensorrt: TensorRT) -> Any:  # noqa: ANN401 - the bindings have no types
    """The process's logger: TensorRT keeps the first one that it gets, so all builders and runtimes share it."""
    trt = tensorrt.module

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401 - as TensorRT calls it
            # Nothing may leave this function: an exception would end the process inside TensorRT.
            with contextlib.suppress(BaseException):
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    _SECTIONS.add(msg, is_error=True)
                elif severity == trt.ILogger.WARNING:
                    _SECTIONS.add(msg, is_error=False)
                elif msg.startswith(LAYERS):
                    _SECTIONS.tell_layers(msg)

    return Logger()


@contextlib.contextmanager
def log_section() -> Iterator[LogSection]:
    """Record what this thread makes TensorRT log; another that works for it says so by `LogSection.followed`."""
    section = LogSection()
    _SECTIONS.begin(section)
    try:
        with section.followed():
            yield section
    finally:
        _SECTIONS.end(section)
