"""Errors of models, builds and comparison: one line that says where, what was expected, what was found, what to do."""


class QuantError(ValueError):
    """Base of all errors that this package raises on bad input."""


class ModelError(QuantError):
    """The ONNX model cannot be read, or cannot be run."""


class BuildError(QuantError):
    """A precision cannot be built from this model; the caller may fall back to another."""
