"""CUDA C compiled when it is needed, for the GPU that is there, by NVRTC; needs neither nvcc nor a CUDA toolkit."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quant.cuda.device import Device, DeviceError, Stream, find_device

_INSTEAD = "use --collector cpu"


class Kernel:
    """A compiled kernel, ready to be launched."""

    def __init__(self, driver: Any, function: Any, name: str) -> None:  # noqa: ANN401 - cuda-python has no types
        self._driver, self._function, self._name = driver, function, name

    def allow_shared(self, size: int) -> None:
        """Let its blocks use so many bytes of shared memory; more than 48 KiB has to be asked for."""
        attribute = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        what = f"{self._name}: shared memory"
        _checked(self._driver, what, self._driver.cuFuncSetAttribute, attribute, size, of=self)

    def launch(
        self, stream: Stream, blocks: int, threads: int, arguments: Sequence[tuple[int, type]], shared: int = 0
    ) -> None:
        """Queue a run of the kernel.

        Args:
            stream: The queue.
            blocks: Number of blocks.
            threads: Threads of a block.
            arguments: Values with their ctypes.
            shared: Bytes of shared memory of a block.

        Raises:
            DeviceError: CUDA refuses it.
        """
        values, kinds = zip(*arguments, strict=True)
        size = (blocks, 1, 1, threads, 1, 1, shared)
        launch = self._driver.cuLaunchKernel
        _checked(self._driver, self._name, launch, *size, int(stream.handle), (values, kinds), 0, of=self)

    @property
    def function(self) -> Any:  # noqa: ANN401 - cuda-python has no types
        """CUDA's handle."""
        return self._function


def kernels_from_file(path: Path, names: Sequence[str], defines: Mapping[str, int]) -> dict[str, Kernel]:
    """Compile a file for the GPU in use and load it; it stays loaded until the process ends.

    Args:
        path: CUDA C.
        names: Its kernels, each of them `extern "C"`.
        defines: Macros.

    Raises:
        DeviceError: NVRTC is missing, or refuses the file.
    """
    device = find_device()
    driver = _bindings("driver", "cuda.cuda")
    image = compiled(path, defines, device)
    (module,) = _checked(driver, path.name, driver.cuModuleLoadData, image)
    found = {}
    for name in names:
        (function,) = _checked(driver, name, driver.cuModuleGetFunction, module, name.encode())
        found[name] = Kernel(driver, function, name)
    return found


def compiled(path: Path, defines: Mapping[str, int], device: Device) -> bytes:
    """Machine code of a file for a GPU, or code that the driver compiles where NVRTC does not know the GPU.

    Raises:
        DeviceError: NVRTC is missing, or refuses the file.
    """
    nvrtc = _bindings("nvrtc", "cuda.nvrtc")
    try:
        _, known = nvrtc.nvrtcGetSupportedArchs()
    except (RuntimeError, OSError, ImportError) as error:  # cuda-python loads the library at the first call
        reason = " ".join(str(error).split())
        raise DeviceError(
            f"NVRTC cannot be loaded: {reason}; install the nvidia-cuda-nvrtc package of cuda-python's CUDA version",
            instead=_INSTEAD,
        ) from error
    wanted = int(device.compute_capability.replace(".", ""))
    usable = [number for number in known if number <= wanted]
    if not usable:
        raise DeviceError(
            f"NVRTC knows no GPU of compute capability {device.compute_capability}, only those from {min(known)}; "
            "install an older cuda-python",
            instead=_INSTEAD,
        )
    kind = "sm" if wanted in usable else "compute"
    options = [f"--gpu-architecture={kind}_{max(usable)}", *(f"-D{name}=({value})" for name, value in defines.items())]
    (program,) = _checked(nvrtc, path.name, nvrtc.nvrtcCreateProgram, path.read_bytes(), path.name.encode(), 0, [], [])
    code, *_ = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    if int(code) != 0:
        log = _text(nvrtc, program, "ProgramLog").decode(errors="replace")
        raise DeviceError(f"NVRTC cannot compile {path.name}: {' '.join(log.split())[:300]}", instead=_INSTEAD)
    image = _text(nvrtc, program, "CUBIN" if kind == "sm" else "PTX")
    nvrtc.nvrtcDestroyProgram(program)
    return image


def _bindings(new: str, old: str) -> Any:  # noqa: ANN401 - cuda-python has no types
    """A part of cuda-python: `cuda.bindings.*`, or `cuda.*` before 12.6."""
    for name in (f"cuda.bindings.{new}", old):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise DeviceError(
        "CUDA cannot be loaded: cuda-python is not installed; pip install 'calib-int8[tensorrt]'", instead=_INSTEAD
    )


def _text(nvrtc: Any, program: Any, what: str) -> bytes:  # noqa: ANN401 - cuda-python has no types
    """What NVRTC made: a log, PTX or machine code."""
    (size,) = _checked(nvrtc, what, getattr(nvrtc, f"nvrtcGet{what}Size"), program)
    text = b" " * int(size)
    _checked(nvrtc, what, getattr(nvrtc, f"nvrtcGet{what}"), program, text)
    return text


def _checked(library: Any, what: str, call: Any, *arguments: Any, of: Kernel | None = None) -> Sequence[Any]:  # noqa: ANN401
    """Call a function of the driver or of NVRTC; returns its values.

    Raises:
        DeviceError: It failed.
    """
    code, *values = call(*([of.function] if of is not None else []), *arguments)
    if int(code) != 0:
        raise DeviceError(f"{what}: {getattr(code, 'name', code)}", str(getattr(code, "name", code)), _INSTEAD)
    return list(values)
