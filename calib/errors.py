"""Errors of calibration: every message is one line that says where, what was expected, what was found, what to do.

One tree: `CalibrationError` is the base of all that `calib` and `quant` raise on purpose (`quant.errors` goes on with
models, settings, builds and GPUs). `datasets`, which knows neither, has `DatasetError`. What is wrong with a value that
was given is a ValueError too; a full disk or a missing GPU is none.
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
    """

    def __init__(self, message: str, *, tensor: str = "", index: int = -1) -> None:
        super().__init__(message)
        self.tensor = tensor
        self.index = index


class OutputError(CalibrationError):
    """Something cannot be written: the disk is full, rights are missing, another run holds the folder."""
