"""Functions that numba compiles once on a machine, and that later processes load without numba.

Importing numba and loading a function from its own cache takes most of a second of the processor. The compiled function
itself is a few kilobytes of object code, which needs neither numba nor Python. So that is kept
(`calib.native.object_files`) and loaded through LLVM alone. Where it cannot be loaded, or not be kept, numba compiles
the function.

A function takes addresses and numbers, so that ctypes can call it; ctypes lets other threads run in the meantime.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import threading
from collections.abc import Callable

from calib.native.machine_code import address_of_code
from calib.native.object_files import keep, key_of_functions, read_kept

ARGUMENTS: dict[str, type[ctypes.c_int64 | ctypes.c_double]] = {  # by letter; `p` is an address
    "p": ctypes.c_int64,
    "i": ctypes.c_int64,
    "d": ctypes.c_double,
}


class NativeFunction:
    """A function of a module that only the compiler imports. It gives an int64."""

    def __init__(self, module: str, name: str, arguments: str, sources: tuple[str, ...] = ()) -> None:
        """Note where the function is; nothing is loaded yet.

        Args:
            module: Its module, in which it is written for numba (see `calib.native.compiler`).
            name: Its name there.
            arguments: A letter for each argument, see ARGUMENTS.
            sources: Further modules whose source the code depends on: constants, or functions that it calls.
        """
        self._module, self._name, self._arguments = module, name, arguments
        self._sources = (module, *sources)
        self._lock = threading.Lock()
        self._function: Callable[..., int] | None = None
        self._needed: object = None  # what owns the code

    def __call__(self, *arguments: float) -> int:
        """Call it, with the addresses of arrays that stay where they are until it returns."""
        function = self._function or self.load()
        return function(*arguments)

    def load(self) -> Callable[..., int]:
        """The function, loaded; compiled first where there is no object code that fits this machine."""
        with self._lock:
            if self._function is None:
                address, self._needed = self._found()
                prototype = ctypes.CFUNCTYPE(ctypes.c_int64, *map(ARGUMENTS.__getitem__, self._arguments))
                self._function = prototype(address)
            return self._function

    def _found(self) -> tuple[int, object]:
        """The function's address, and what must live as long as it is called."""
        key = key_of_functions(self._sources, f"{self._module}.{self._name}({self._arguments})")
        if key is not None:
            code = read_kept(key)
            loaded = None if code is None else address_of_code(code)
            if loaded is not None:
                return loaded
        from calib.native.compiler import compiled, object_code

        function = compiled(getattr(importlib.import_module(self._module), self._name), self._arguments)
        if key is not None:
            with contextlib.suppress(OSError, RuntimeError, ValueError):  # without object code, each process compiles
                keep(key, object_code(function))
        return function.address, function
