"""Errors of calibration. Every message is one line: where, what was expected, what was found, what to do.

`CalibrationError` is the base of all errors that `calib` and `quant` raise on purpose; `quant.errors` adds those about
models, settings, builds and GPUs. `datasets`, which imports neither, has `DatasetError`. An error about a given value
is also a ValueError; one about a full disk or a missing GPU is not.
"""


class CalibrationError(Exception):
    """Base of all errors that `calib` and `quant` raise on purpose."""


class CacheError(CalibrationError, ValueError):
    """A calibration cache, or a file beside it, is not what it should be."""


class NonFiniteError(CalibrationError, ValueError):
    """An activation holds NaN or infinity.

    Attributes:
        tensor: Name of the tensor.
        index: Flat index of the first non-finite value in the array that was added.
        counted: How many of the array's values, the first ones, were counted.
    """

    def __init__(self, message: str, *, tensor: str = "", index: int = -1, counted: int = 0) -> None:
        super().__init__(message)
        self.tensor = tensor
        self.index = index
        self.counted = counted


class OutputError(CalibrationError):
    """A file cannot be written: the disk is full, permission is denied, or another run holds the folder."""
