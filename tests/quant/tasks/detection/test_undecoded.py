"""Outputs of detectors that are not decoded are named, and are not taken for something else."""

import numpy as np
import pytest

from quant.onnx_graph.metadata import ModelMetadata
from quant.tasks.detection.finding import Evidence, head_from_outputs
from quant.tasks.detection.undecoded import undecoded

RNG = np.random.default_rng(0)
SIZE = (64, 96)
UNTOLD = ModelMetadata()


def levels(form, classes=4, steps=(8, 16, 32)):
    values = 5 + classes
    found = []
    for step in steps:
        height, width = SIZE[0] // step, SIZE[1] // step
        shape = {
            "channels": (2, 3 * values, height, width),
            "channels last": (2, height, width, 3 * values),
            "anchors": (2, 3, height, width, values),
        }[form]
        found.append(RNG.normal(0, 2, shape).astype(np.float32))
    return found


def evidence(outputs, metadata=UNTOLD, names=None, **known):
    return Evidence(names or [f"out{i}" for i in range(len(outputs))], outputs, 2, SIZE, metadata, **known)


@pytest.mark.parametrize("form", ["channels", "channels last", "anchors"])
@pytest.mark.parametrize("steps", [(8, 16, 32), (16, 32)])
def test_raw_levels_that_need_anchors(form, steps):
    found = evidence(levels(form, steps=steps))
    assert head_from_outputs(found) is None
    assert "whose boxes need anchors that the file does not hold" in undecoded(found)


@pytest.mark.parametrize("certain", [False, True])
def test_rotated_boxes(certain):
    """Their last channel is an angle, which must not become the score of a class, even where labels say it detects."""
    outputs = [RNG.random((2, 4 + 3 + 1, 126)).astype(np.float32)]
    found = evidence(outputs, ModelMetadata(task="obb"), certain=certain)
    assert head_from_outputs(found) is None
    assert undecoded(found) == "rotated boxes are not decoded"
    assert undecoded(evidence(outputs, names=["obb"])) == "rotated boxes are not decoded"


@pytest.mark.parametrize(
    "outputs",
    [
        [RNG.normal(0, 1, (2, 10))],
        [RNG.normal(0, 1, (2, 27, 8, 12))],  # one map
        [RNG.normal(0, 1, (2, 32, 8, 12)), RNG.normal(0, 1, (2, 64, 4, 6))],  # a backbone's
        [RNG.normal(0, 1, (2, 27, 8, 12)), RNG.normal(0, 1, (2, 27, 8, 12))],  # two of one step
    ],
)
def test_what_is_no_detector_s(outputs):
    assert undecoded(evidence(outputs)) == ""
