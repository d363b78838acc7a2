"""Object code as functions in memory, through LLVM alone."""

from __future__ import annotations

import contextlib
from typing import Any

from calib.native.object_files import ObjectCode


def address_of_code(code: ObjectCode) -> tuple[int, Any] | None:
    """The address of object code's function in memory, and the engine that owns it; None where it cannot be loaded."""
    from llvmlite import binding

    start_llvm()
    # LLVM ends the process when it meets a name that it cannot find, so each is looked for before.
    if not all(binding.address_of_symbol(name) for name in code.needs):
        return None
    try:
        machine = binding.Target.from_default_triple().create_target_machine(codemodel="jitdefault", jit=True)
        module = binding.parse_assembly(f'target triple = "{binding.get_default_triple()}"')
        engine = binding.create_mcjit_compiler(module, machine)
        engine.add_object_file(binding.ObjectFileRef.from_data(code.data))
        engine.finalize_object()
        address = int(engine.get_function_address(code.symbol))
    except RuntimeError:
        return None
    return (address, engine) if address else None


def start_llvm() -> None:
    """Make LLVM ready to make and to load code for this machine; may be called again."""
    from llvmlite import binding

    with contextlib.suppress(RuntimeError):  # what llvmlite 0.45 and later say, which need no such call
        binding.initialize()
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
