"""The kernels of `counting.cu`: how they are compiled, and the tables that they read and write."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calib.histograms import kernels
from calib.histograms.tables import BINS
from quant.cuda.device import Stream, device_limits
from quant.cuda.run_time_compiler import Kernel, kernels_from_file

SOURCE = Path(__file__).with_name("counting.cu")
ROWS = 3
TABLE_BYTES = BINS * 4  # of one row of counts in shared memory
ALIGNMENT = 16  # bytes: values are read four at a time

# The structures of counting.cu, field by field.
TENSOR = np.dtype(
    [
        ("values", np.uint64),
        ("size", np.int64),
        ("first_tile", np.int64),
        ("limit", np.float32),
        ("rows", np.int32),
        ("policy", np.int32),
        ("unused", np.int32),
    ]
)
STATE = np.dtype(
    [
        ("slots", np.int64, kernels.STATE_SLOTS),
        ("mode", np.int32),
        ("verdict", np.int32),
        ("zeros", np.uint64),
        ("low", np.int32),
        ("high", np.int32),
    ]
)
WHOLE, RECTIFIED, DROPPED = range(3)  # modes
REQUIRED, CLIP_REQUIRED, OPTIONAL = range(3)  # policies
DONE, AGAIN, NOT_FINITE = range(3)  # verdicts


@dataclass(frozen=True)
class Shape:
    """How the work is divided on a GPU.

    Attributes:
        threads: Threads of a block; a multiple of 32.
        blocks: Blocks that a multiprocessor runs at a time.
        shared_rows: Rows of counts that fit into a block's shared memory; others are counted in the GPU's memory.
    """

    threads: int = 512
    blocks: int = 2
    shared_rows: int = ROWS

    @property
    def tile(self) -> int:
        """Values that a block takes at a time."""
        return 16 * self.threads

    def defines(self) -> dict[str, int]:
        """The macros that counting.cu needs."""
        return {
            "BINS": BINS,
            "LOG2_BINS": BINS.bit_length() - 1,
            "MIN_EXPONENT": kernels.MIN_EXPONENT,
            "UNSET": kernels.UNSET,
            "INFINITY_KEY": kernels.INFINITY_KEY,
            "NEGATIVE": kernels.NEGATIVE,
            "POSITIVE": kernels.POSITIVE,
            "ABOVE": kernels.ABOVE,
            "ZEROS": kernels.ZEROS,
            "MIN_KEY": kernels.MIN_KEY,
            "MAX_KEY": kernels.MAX_KEY,
            "STARTED": kernels.STARTED,
            "STATE_SLOTS": kernels.STATE_SLOTS,
            "THREADS": self.threads,
            "BLOCKS": self.blocks,
            "SHARED_ROWS": self.shared_rows,
        }


class CountingKernels:
    """The compiled kernels.

    Attributes:
        shape: How the work is divided.
    """

    def __init__(self, shape: Shape | None = None) -> None:
        """Compile for the GPU in use.

        Args:
            shape: How to divide the work; by default what the GPU's memory allows.

        Raises:
            DeviceError: NVRTC is missing, or refuses.
        """
        limits = device_limits()
        self.shape = shape or shape_for(limits.shared_bytes_of_block, limits.shared_bytes)
        self._blocks = limits.multiprocessors * self.shape.blocks
        self._shared = self.shape.shared_rows * TABLE_BYTES
        found = kernels_from_file(SOURCE, ("count", "settle"), self.shape.defines())
        self._count: Kernel = found["count"]
        self._settle: Kernel = found["settle"]
        self._count.allow_shared(self._shared)

    def count(self, stream: Stream, tensors: int, amount: int, states: int, fresh: int, *, again: bool) -> None:
        """Queue the counting of a batch.

        Args:
            stream: The queue.
            tensors: Address of `amount` + 1 entries of `TENSOR`.
            amount: Number of tensors.
            states: Address of as many `STATE`.
            fresh: Address of uint32 [amount, ROWS, BINS].
            again: Whether only those are counted that the last round left.
        """
        arguments = [_address(tensors), (amount, ctypes.c_int), _address(states), _address(fresh)]
        arguments.append((int(again), ctypes.c_int))
        self._count.launch(stream, self._blocks, self.shape.threads, arguments, self._shared)

    def settle(
        self, stream: Stream, tensors: int, amount: int, states: int, fresh: int, counts: int, *, again: bool
    ) -> None:
        """Queue what ends a round.

        Args:
            stream: The queue.
            tensors: As for `count`, and so are `amount`, `states`, `fresh` and `again`.
            amount: See there.
            states: See there.
            fresh: See there.
            counts: Address of int64 [amount, ROWS, BINS].
            again: See there.
        """
        arguments = [_address(tensors), _address(states), _address(fresh), _address(counts)]
        arguments.append((int(again), ctypes.c_int))
        self._settle.launch(stream, amount, self.shape.threads, arguments)


def shape_for(shared_bytes_of_block: int, shared_bytes: int) -> Shape:
    """How to divide the work on a GPU with so much shared memory in a block, and in a multiprocessor."""
    rows = min(ROWS, shared_bytes_of_block // TABLE_BYTES)
    reserved = 1 << 10  # of each block, by CUDA
    return Shape(blocks=2 if 2 * (rows * TABLE_BYTES + reserved) <= shared_bytes else 1, shared_rows=rows)


def _address(pointer: int) -> tuple[int, type]:
    return pointer, ctypes.c_void_p
