"""Errors of models, builds and comparison: one line that says where, what was expected, what was found, what to do."""


class QuantError(ValueError):
    """Base of all errors that this package raises on bad input."""


class ModelError(QuantError):
    """The ONNX model cannot be read, or cannot be run."""


class BuildError(QuantError):
    """A precision cannot be built from this model; the caller may fall back to another."""


class AcceleratorError(QuantError):
    """TensorRT or the GPU cannot be used.

    Attributes:
        reason: What is wrong and what to do about it; the message also names what would do instead, where there is
            something.
    """

    def __init__(self, reason: str, instead: str = "") -> None:
        super().__init__(f"{reason}, or {instead}" if instead else reason)
        self.reason = reason
