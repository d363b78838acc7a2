"""Errors of calibration: every message is one line that says where, what was expected, what was found, what to do."""


class CalibrationError(ValueError):
    """Base of all errors that this package raises on bad input."""


class CacheError(CalibrationError):
    """A calibration cache, or a file beside it, is not what it should be."""


class NonFiniteError(CalibrationError):
    """An activation holds NaN or infinity.

    Attributes:
        tensor: Name of the tensor.
        index: Flat index of the first non-finite value in the array that was added.
    """

    def __init__(self, message: str, *, tensor: str = "", index: int = -1) -> None:
        super().__init__(message)
        self.tensor = tensor
        self.index = index
