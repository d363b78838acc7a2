"""Errors of models, settings, builds and comparisons, which extend the hierarchy of `calib.errors`.

Every message is one line that says where, what was expected, what was found and what to do.
"""

from calib.errors import CalibrationError


class QuantError(CalibrationError):
    """Base of all errors that this package raises on purpose."""


class SettingsError(QuantError, ValueError):
    """What was asked for makes no sense: an unknown key, a value out of range, settings that exclude each other."""


class ModelError(QuantError, ValueError):
    """The ONNX model cannot be read, or cannot be run."""


class BuildError(QuantError):
    """A precision cannot be built from this model; the caller may fall back to another."""


class AcceleratorError(QuantError):
    """TensorRT or the GPU cannot be used.

    Attributes:
        reason: What is wrong and what to do about it; the message also names an alternative, if there is one.
    """

    def __init__(self, reason: str, instead: str = "") -> None:
        super().__init__(f"{reason}, or {instead}" if instead else reason)
        self.reason = reason
