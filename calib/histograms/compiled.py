"""Loops that numba compiles, without numba until the first of them is called.

Importing numba takes a quarter of a second, and most commands read modules whose loops they never call. The loops of
every calibration are loaded without numba even then, see `calib.native`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_LOADING = threading.Lock()


class Compiled(Generic[_Parameters, _Result]):
    """A function that numba compiles at its first call, and keeps on disk; it releases the GIL."""

    def __init__(self, function: Callable[_Parameters, _Result]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._loaded: Any = None

    @property
    def dispatcher(self) -> Any:  # noqa: ANN401 - numba has no types
        """What numba makes of the function."""
        if self._loaded is None:
            with _LOADING:
                if self._loaded is None:
                    import numba

                    self._loaded = numba.njit(nogil=True, cache=True)(self._function)
        return self._loaded

    @property
    def _numba_type_(self) -> Any:  # noqa: ANN401 - numba has no types
        """Where numba asks for a value's type: compiled loops may call each other."""
        return self.dispatcher._numba_type_

    def __call__(self, *arguments: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
        """Call the function; the first call loads numba, and the function from the disk or by compiling it."""
        result: _Result = self.dispatcher(*arguments, **options)
        return result


def compiled(function: Callable[_Parameters, _Result]) -> Compiled[_Parameters, _Result]:
    """Have numba compile a function in nopython mode, when it is first called."""
    return Compiled(function)
