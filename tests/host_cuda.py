"""CUDA's runtime API in host memory, so that code that uses it can run and be observed without a GPU."""

import ctypes
import types

CODES = {0: b"cudaSuccess", 2: b"cudaErrorMemoryAllocation", 100: b"cudaErrorNoDevice", 700: b"cudaErrorIllegalAddress"}


ALIGNMENT = 256  # bytes, as CUDA's
_ALLOCATED = {}  # as with CUDA, memory that nobody frees stays valid until the process ends


class HostCuda:
    """Memory is on the host and copies are done at once; a copy from or to memory that is not live is refused.

    Attributes:
        live: Objects that were made and not yet freed, by handle.
        made: How often each function was called.
        fail: Error code that a function returns, by the function's name.
        limit: Number of bytes that can be allocated at a time.
    """

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(self, limit=1 << 30):
        self.live, self.made, self.fail, self.limit = {}, {}, {}, limit
        self._next = 1

    def __getattr__(self, name):
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def call(*arguments):
            self.made[name] = self.made.get(name, 0) + 1
            if name in self.fail:
                return (self.fail[name],)
            return getattr(self, f"do_{name}", lambda *_: (0,))(*arguments)

        return call

    def do_cudaGetErrorName(self, code):
        return 0, CODES[code]

    def do_cudaGetErrorString(self, code):
        return 0, b"text of " + CODES[code]

    def do_cudaMalloc(self, size):
        if size + sum(len(memory) for memory in self.live.values() if memory is not None) > self.limit:
            return (2,)
        memory = (ctypes.c_uint8 * (size + ALIGNMENT))()
        address = -(-ctypes.addressof(memory) // ALIGNMENT) * ALIGNMENT
        _ALLOCATED[address] = memory
        self.live[address] = (ctypes.c_uint8 * size).from_address(address)
        return 0, address

    do_cudaMallocHost = do_cudaMalloc

    def _freed(self, handle):
        _ALLOCATED.pop(handle, None)
        return (0,) if self.live.pop(handle, self) is not self else (700,)

    do_cudaFree = do_cudaFreeHost = do_cudaStreamDestroy = do_cudaEventDestroy = _freed

    def _created(self, *_):
        self._next += 1
        self.live[self._next] = None
        return 0, self._next

    do_cudaStreamCreateWithFlags = do_cudaEventCreate = _created

    def _is_live(self, pointer, size):
        blocks = [(start, len(memory)) for start, memory in list(self.live.items()) if memory is not None]
        return any(start <= pointer and pointer + size <= start + length for start, length in blocks)

    def do_cudaMemcpyAsync(self, target, source, size, kind, stream):
        if not (self._is_live(target, size) and self._is_live(source, size)):
            return (700,)
        ctypes.memmove(target, source, size)
        return (0,)

    def do_cudaMemsetAsync(self, target, value, size, stream):
        if not self._is_live(target, size):
            return (700,)
        ctypes.memset(target, value, size)
        return (0,)

    def do_cudaEventElapsedTime(self, start, end):
        return 0, 0.5
