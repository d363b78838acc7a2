"""Points in every form that outputs have, read back as the points that were written."""

import numpy as np
import pytest

from datasets import Batch, Preprocessing
from quant.evaluation.outputs import OutputLayout
from quant.tasks.vectors.keypoints import KeypointRecorder, point_head_from_outputs

SIZE = (32, 64)  # height and width of the input
POINTS = np.array([[[10.5, 4.5], [40.5, 20.5], [60.5, 30.5]], [[1.5, 2.5], [33.5, 8.5], [5.5, 16.5]]])  # x, y


def maps():
    found = np.zeros((2, 3, *SIZE), np.float32)
    for image, point in np.ndindex(2, 3):
        x, y = POINTS[image, point]
        found[image, point, int(y), int(x)] = 1
    return found


FORMS = {
    "pairs in a row": POINTS.reshape(2, 6),
    "pairs": POINTS,
    "triples": np.concatenate([POINTS, np.ones((2, 3, 1))], axis=2),
    "fractions": POINTS / (64, 32),
    "maps": maps(),
    "coarse maps": maps().reshape(2, 3, 16, 2, 32, 2).max(axis=(3, 5)),
}


@pytest.mark.parametrize("form", FORMS)
def test_points_are_read(form):
    output = FORMS[form].astype(np.float32)
    head = point_head_from_outputs([OutputLayout("y", 0)], [output], 3)
    np.testing.assert_allclose(head.read([output], SIZE), POINTS, atol=1 if "coarse" in form else 1e-4)


def test_points_of_another_number_are_none():
    assert point_head_from_outputs([OutputLayout("y", 0)], [FORMS["pairs"].astype(np.float32)], 5) is None


@pytest.mark.parametrize("unit", ["pixels", "fractions"])
def test_distances_are_those_in_the_image(unit):
    """Images of 200 x 128 (width x height), letterboxed into 64 x 32; a point that is off by 10 pixels is 5 %."""
    height, width = 128, 200
    preprocessing = Preprocessing(resize="letterbox").bound_to([None, 3, *SIZE], "float32")
    frame = preprocessing.frame(height, width)
    in_image = np.array([[20.0, 30], [100, 64], [150, 120]])
    outputs = (in_image + np.array([[0, 0], [10, 0], [0, 0]])) * np.array(frame.scale) + np.array(frame.corner)
    labels = in_image.reshape(1, 6) / ([width, height] * 3 if unit == "fractions" else 1)
    head = point_head_from_outputs([OutputLayout("y", 0)], [outputs.reshape(1, 6).astype(np.float32)], 3)
    recorder = KeypointRecorder(head, labels, preprocessing, SIZE)
    batch = Batch({}, np.zeros(1, np.int64), ("0.png",), labels, np.array([[height, width]]))
    recorder.observe("fp32", [outputs.reshape(1, 6)], batch)
    assert recorder.score("fp32") == pytest.approx(100 * 10 / 200 / 3, rel=1e-5)
    assert [row["values"]["fp32"] for row in recorder.parts("fp32")[1]] == pytest.approx([0, 5, 0], abs=1e-4)
