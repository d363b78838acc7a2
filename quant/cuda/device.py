"""NVIDIA GPUs through CUDA's runtime API: memory, streams, events; failures become errors with CUDA's name for them.

Only the runtime API is used, so that everything lives in the primary context, which PyTorch in the same process shares.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from quant.errors import AcceleratorError

_ADVICE = {
    "cudaErrorNoDevice": "no NVIDIA GPU is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES",
    "cudaErrorInsufficientDriver": "the NVIDIA driver is missing, or older than this CUDA runtime: install a newer one",
    "cudaErrorSystemDriverMismatch": "the NVIDIA driver's library and kernel module differ: reboot, or reinstall it",
    "cudaErrorMemoryAllocation": "the GPU's memory is full: end other programs on it, or use a smaller --batch-size",
}
_INSTEAD = "use ONNX Runtime"


class DeviceError(AcceleratorError):
    """CUDA refused something.

    Attributes:
        name: CUDA's name of the error; empty when CUDA itself cannot be loaded.
    """

    def __init__(self, reason: str, name: str = "", instead: str = "") -> None:
        super().__init__(reason, instead)
        self.name = name


class OutOfDeviceMemoryError(DeviceError):
    """The GPU, or the memory that it can copy from, is full."""


def load_kernels_when_used() -> None:
    """Let libraries load a GPU's kernels when they are first used, unless the user has said otherwise.

    TensorRT 8.6 has thousands, of a CUDA that loads all of them at the start; later ones do this by default. Whoever
    loads CUDA or a library that uses it calls this before.
    """
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")


@functools.cache
def _runtime() -> Any:  # noqa: ANN401 - cuda-python has no types
    """CUDA's runtime API: `cuda.bindings.runtime`, or `cuda.cudart` of cuda-python before 12.6.

    Raises:
        DeviceError: cuda-python or the driver is missing.
    """
    load_kernels_when_used()
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise DeviceError(f"CUDA cannot be loaded: {reason}; install the NVIDIA driver and cuda-python") from error
    raise DeviceError("CUDA cannot be loaded: cuda-python is not installed; pip install 'calib-int8[tensorrt]'")


def _call(function: str, *arguments: Any) -> Any:  # noqa: ANN401 - whatever CUDA gives
    """Call a function of the runtime API; returns its value, or the tuple of its values.

    Raises:
        OutOfDeviceMemoryError: Memory is full.
        DeviceError: CUDA returned any other failure.
    """
    runtime = _runtime()
    try:
        code, *values = getattr(runtime, function)(*arguments)
    except RuntimeError as error:  # cuda-python loads the driver at the first call
        reason = " ".join(str(error).split())
        raise DeviceError(f"{function}: {reason}; install the NVIDIA driver", "cudaErrorInsufficientDriver") from error
    if int(code) != 0:
        _, name = runtime.cudaGetErrorName(code)
        _, text = runtime.cudaGetErrorString(code)
        name, text = (part.decode() if isinstance(part, bytes) else str(part) for part in (name, text))
        kind = OutOfDeviceMemoryError if name == "cudaErrorMemoryAllocation" else DeviceError
        advice = _ADVICE.get(name)
        instead = _INSTEAD if name == "cudaErrorNoDevice" else ""
        raise kind(f"{function}: {name} ({text})" + (f"; {advice}" if advice else ""), name, instead)
    return values[0] if len(values) == 1 else tuple(values)


@dataclass(frozen=True)
class Device:
    """The GPU in use.

    Attributes:
        name: Its name.
        compute_capability: Such as "9.0".
        memory: Bytes of device memory.
        driver_cuda: Newest CUDA version that the driver supports, such as "12.4".
        runtime_cuda: Version of the runtime API, such as "12.2".
    """

    name: str
    compute_capability: str
    memory: int
    driver_cuda: str
    runtime_cuda: str


def find_device() -> Device:
    """The GPU that this process uses: the first visible one.

    Raises:
        DeviceError: CUDA cannot be loaded, or there is no usable GPU; the message says what to install.
    """
    driver = int(_call("cudaDriverGetVersion"))
    if driver == 0:
        raise DeviceError(
            "cudaDriverGetVersion: no NVIDIA driver is loaded; install it", "cudaErrorInsufficientDriver", _INSTEAD
        )
    _call("cudaGetDeviceCount")
    use_device()
    properties = _call("cudaGetDeviceProperties", 0)
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Device(
        name=name.rstrip("\0"),
        compute_capability=f"{properties.major}.{properties.minor}",
        memory=int(properties.totalGlobalMem),
        driver_cuda=_version_text(driver),
        runtime_cuda=_version_text(int(_call("cudaRuntimeGetVersion"))),
    )


@dataclass(frozen=True)
class DeviceLimits:
    """What kernels may use.

    Attributes:
        multiprocessors: Their number.
        shared_bytes_of_block: Shared memory that a block may have, bytes.
        shared_bytes: Shared memory of a multiprocessor, bytes.
    """

    multiprocessors: int
    shared_bytes_of_block: int
    shared_bytes: int


def device_limits() -> DeviceLimits:
    """The limits of the GPU in use.

    Raises:
        DeviceError: There is no usable GPU.
    """
    properties = _call("cudaGetDeviceProperties", 0)
    return DeviceLimits(
        multiprocessors=int(properties.multiProcessorCount),
        shared_bytes_of_block=int(properties.sharedMemPerBlockOptin),
        shared_bytes=int(properties.sharedMemPerMultiprocessor),
    )


def nominal_bandwidth() -> float:
    """Bytes per second of the GPU's memory by its clock and width, at two transfers a clock."""
    kinds = _runtime().cudaDeviceAttr
    kilohertz = int(_call("cudaDeviceGetAttribute", kinds.cudaDevAttrMemoryClockRate, 0))
    bits = int(_call("cudaDeviceGetAttribute", kinds.cudaDevAttrGlobalMemoryBusWidth, 0))
    return 2.0 * kilohertz * 1000 * bits / 8


def _version_text(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def use_device() -> None:
    """Make the GPU current in this thread; each thread that calls CUDA needs this once."""
    _call("cudaSetDevice", 0)


def memory_info() -> tuple[int, int]:
    """Free and total bytes of device memory, as the driver sees it (other programs included)."""
    free, total = _call("cudaMemGetInfo")
    return int(free), int(total)


def synchronize() -> None:
    """Wait until the GPU has finished all its work."""
    _call("cudaDeviceSynchronize")


class _Resource:
    """A CUDA resource that is freed once, by `close` or at the end of a `with` block."""

    _free = ""

    def __init__(self, handle: Any) -> None:  # noqa: ANN401 - an address or one of cuda-python's handles
        self._handle = handle

    @property
    def handle(self) -> Any:  # noqa: ANN401 - see above
        """CUDA's handle.

        Raises:
            DeviceError: It has already been freed.
        """
        if self._handle is None:
            raise DeviceError(f"{type(self).__name__}: used after it was freed")
        return self._handle

    def close(self) -> None:
        """Free it; a second call does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _call(self._free, handle)

    def __enter__(self) -> Any:  # noqa: ANN401 - the subclass itself; typing.Self needs Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class DeviceBuffer(_Resource):
    """Device memory.

    Attributes:
        bytes: Its size.
    """

    _free = "cudaFree"

    def __init__(self, size: int) -> None:
        self.bytes = max(int(size), 1)
        super().__init__(int(_call("cudaMalloc", self.bytes)))

    @property
    def pointer(self) -> int:
        """Its address on the device."""
        return int(self.handle)


class PinnedBuffer(_Resource):
    """Host memory that the GPU copies from and to directly, seen as an array.

    Attributes:
        bytes: Its size.
    """

    _free = "cudaFreeHost"

    def __init__(self, shape: Sequence[int], dtype: DTypeLike) -> None:
        self._shape, self._dtype = tuple(shape), np.dtype(dtype)
        self.bytes = max(int(np.prod(self._shape, dtype=np.int64)) * self._dtype.itemsize, 1)
        super().__init__(int(_call("cudaMallocHost", self.bytes)))

    @property
    def pointer(self) -> int:
        """Its address."""
        return int(self.handle)

    @property
    def array(self) -> NDArray[Any]:
        """The memory as an array; not to be used after `close`."""
        memory = (ctypes.c_uint8 * self.bytes).from_address(self.pointer)
        count = int(np.prod(self._shape, dtype=np.int64))
        return np.ctypeslib.as_array(memory)[: count * self._dtype.itemsize].view(self._dtype).reshape(self._shape)


class Stream(_Resource):
    """A queue of work that does not wait for the default stream."""

    _free = "cudaStreamDestroy"

    def __init__(self) -> None:
        super().__init__(_call("cudaStreamCreateWithFlags", int(_runtime().cudaStreamNonBlocking)))

    def synchronize(self) -> None:
        """Wait until its work is done."""
        _call("cudaStreamSynchronize", self.handle)

    def copy_to_device(self, target: DeviceBuffer, source: PinnedBuffer, size: int | None = None) -> None:
        """Queue a copy of the first `size` bytes (all by default)."""
        self.copy_to(target.pointer, source, source.bytes if size is None else size)

    def copy_to(self, address: int, source: PinnedBuffer, size: int) -> None:
        """Queue a copy of the first `size` bytes to an address on the device."""
        kind = _runtime().cudaMemcpyKind.cudaMemcpyHostToDevice
        _call("cudaMemcpyAsync", address, source.pointer, size, kind, self.handle)

    def copy_on_device(self, target: DeviceBuffer, source: DeviceBuffer) -> None:
        """Queue a copy within the device's memory, of all that `source` holds."""
        kind = _runtime().cudaMemcpyKind.cudaMemcpyDeviceToDevice
        _call("cudaMemcpyAsync", target.pointer, source.pointer, source.bytes, kind, self.handle)

    def copy_to_host(self, target: PinnedBuffer, source: DeviceBuffer, size: int | None = None) -> None:
        """Queue a copy of the first `size` bytes (all by default)."""
        self.copy_from(target, source.pointer, target.bytes if size is None else size)

    def copy_from(self, target: PinnedBuffer, address: int, size: int) -> None:
        """Queue a copy of `size` bytes at an address on the device."""
        kind = _runtime().cudaMemcpyKind.cudaMemcpyDeviceToHost
        _call("cudaMemcpyAsync", target.pointer, address, size, kind, self.handle)

    def clear(self, target: DeviceBuffer) -> None:
        """Queue the filling with zeros."""
        _call("cudaMemsetAsync", target.pointer, 0, target.bytes, self.handle)


class Event(_Resource):
    """A mark in a stream, with its time."""

    _free = "cudaEventDestroy"

    def __init__(self) -> None:
        super().__init__(_call("cudaEventCreate"))

    def record(self, stream: Stream) -> None:
        """Put the mark after the work that the stream holds so far."""
        _call("cudaEventRecord", self.handle, stream.handle)

    def synchronize(self) -> None:
        """Wait until the stream has reached the mark."""
        _call("cudaEventSynchronize", self.handle)

    def milliseconds_since(self, earlier: Event) -> float:
        """Time from an earlier mark to this one; both must have been reached."""
        return float(_call("cudaEventElapsedTime", earlier.handle, self.handle))
