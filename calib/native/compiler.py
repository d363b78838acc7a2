"""Compiling functions with numba. Only this module and the functions' own import numba.

A function takes addresses and numbers and gives an int64. What it calls is `inlined`. It reads and writes through
pointers that `float32s` and the like make of addresses; there are no arrays, since numba would count who holds them.
And it cannot raise. So its code needs nothing of numba's at run time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from calib.native.machine_code import start_llvm
from calib.native.object_files import ObjectCode

Pointer = Any  # to elements of a type: `pointer[i]` is one of them
_TYPES = {"p": types.int64, "i": types.int64, "d": types.float64}


def compiled(function: Callable[..., int], arguments: str) -> Any:  # noqa: ANN401 - numba has no types
    """A function compiled for this processor; its `address` may be called, without Python's lock.

    Args:
        function: See the module's docstring.
        arguments: A letter for each argument, see `calib.native.functions`.
    """
    signature = types.int64(*(_TYPES[letter] for letter in arguments))
    return numba.cfunc(signature, error_model="numpy", forceinline=True)(function)


def inlined(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - numba has no types
    """A function that compiled functions call; its code becomes a part of theirs."""
    return numba.njit(error_model="numpy", forceinline=True)(function)


def object_code(function: Any) -> ObjectCode:  # noqa: ANN401 - numba has no types
    """The object code of what `compiled` gives.

    Raises:
        ValueError: It needs something of numba's at run time, and so cannot be loaded without.
    """
    start_llvm()
    target = binding.Target.from_default_triple()
    machine = target.create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        opt=3,
        reloc="static" if target.name.startswith("x86") else "default",  # as LLVM loads it
        codemodel="jitdefault",
        jit=True,
    )
    module = binding.parse_assembly(function.inspect_llvm())
    declared = {found.name for found in (*module.functions, *module.global_variables) if found.is_declaration}
    needs = tuple(sorted(name for name in declared if not name.startswith("llvm.")))
    foreign = [name for name in needs if name.startswith(("NRT_", "numba_", "Py", "_Py"))]
    if foreign:
        raise ValueError(f"{function.native_name}: expected code that stands alone, found that it needs {foreign[0]}")
    return ObjectCode(machine.emit_object(module), function.native_name, needs)


def _pointer_to(kind: Any) -> Any:  # noqa: ANN401 - numba has no types
    """A function that makes an int64 the address of values of a type."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    def pointer(typing: Any, address: Any) -> Any:  # noqa: ANN401
        return types.CPointer(kind)(types.int64), generate

    return intrinsic(pointer)


float32s = _pointer_to(types.float32)
float64s = _pointer_to(types.float64)
int32s = _pointer_to(types.int32)
int64s = _pointer_to(types.int64)
uint32s = _pointer_to(types.uint32)


def _prefetch(typing: Any, address: Any) -> Any:  # noqa: ANN401 - numba has no types
    """Begin to load the cache line at an address, which need not exist."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        read, near, data = flag(0), flag(3), flag(1)
        builder.call(function, [builder.inttoptr(arguments[0], byte), read, near, data])
        return context.get_dummy_value()

    return types.void(types.int64), generate


prefetch: Any = intrinsic(_prefetch)
