"""The settings that take one of several words; nothing heavy is imported here, because `--help` reads them."""

from calib.names import ALGORITHMS

CHOICES = {
    "algo": ("auto", *ALGORITHMS),
    "sampling": ("random", "first"),
    "backend": ("auto", "onnxruntime", "tensorrt"),
    "calibrator": ("toolkit", "tensorrt"),
    "collector": ("auto", "cpu", "gpu"),
    "precision": ("int8", "fp16", "fp32"),
    "task": ("auto", "classify", "detect", "segment", "embed", "multilabel", "regress", "keypoints", "image", "none"),
    "head": ("float", "int8"),
}

RECOVERY_STEPS = ("equalize", "ranges", "bias", "weights", "float")
