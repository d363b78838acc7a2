"""What is no detector must not be taken for one, and what the file says is used."""

import numpy as np
import onnx
import pytest
from onnx import helper

from quant.onnx_graph.metadata import ModelMetadata, metadata_from_model, metadata_from_values
from quant.tasks.detection.finding import Evidence, head_from_outputs

RNG = np.random.default_rng(0)


def softmax(values, axis=-1):
    shares = np.exp(values - values.max(axis=axis, keepdims=True))
    return (shares / shares.sum(axis=axis, keepdims=True)).astype(np.float32)


NO_DETECTORS = {
    "logits of classes": [RNG.normal(size=(8, 10))],
    "probabilities": [softmax(RNG.normal(size=(8, 10)))],
    "an embedding and logits": [RNG.normal(size=(8, 64)), RNG.normal(size=(8, 10))],
    "keypoints": [RNG.uniform(0, 96, (8, 4))],
    "keypoints by pairs": [RNG.uniform(0, 96, (8, 17, 2))],
    "heatmaps": [RNG.uniform(0, 1, (8, 17, 24, 24))],
    "logits of a segmentation": [RNG.normal(size=(8, 21, 96, 96))],
    "a map": [RNG.uniform(0, 1, (8, 1, 96, 96))],
    "features of levels": [np.maximum(RNG.normal(size=(8, 128, 96 // s, 96 // s)), 0) for s in (8, 16, 32)],
    "texts, probabilities by time": [softmax(RNG.normal(size=(8, 40, 97)))],
    "texts, logits by time": [RNG.normal(size=(8, 40, 97))],
    "tokens": [RNG.normal(size=(8, 145, 192))],
    "an age and a probability": [RNG.uniform(0, 90, (8, 1)), RNG.uniform(0, 1, (8, 1))],
    "several labels": [RNG.uniform(0, 1, (8, 4))],
    "a single number": [RNG.normal(size=(8, 10)), np.array(0.5)],
    "nothing": [],
}


@pytest.mark.parametrize("name", NO_DETECTORS)
@pytest.mark.parametrize("images", [8, 1])
def test_other_models_are_no_detectors(name, images):
    outputs = [(output[:images] if output.ndim else output).astype(np.float32) for output in NO_DETECTORS[name]]
    found = Evidence([f"out{i}" for i in range(len(outputs))], outputs, images, (96, 96))
    assert head_from_outputs(found) is None


def metadata_of(**values):
    proto = onnx.ModelProto()
    helper.set_model_props(proto, values)
    return metadata_from_model(proto)


def test_metadata_as_exporters_write_it():
    found = metadata_of(names="{0: 'cat', 1: \"dog's\"}", imgsz="[320, 640]", task="detect", stride="32", batch="1")
    assert found == ModelMetadata("detect", ("cat", "dog's"), (320, 640), 32)
    assert found.told == ["2 class names", "size 320x640", "task detect", "stride 32"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"names": '["a", "b"]', "imgsz": "416"}, ModelMetadata(None, ("a", "b"), (416, 416))),
        ({"names": '{"0": "a", "1": "b"}'}, ModelMetadata(None, ("a", "b"))),
        ({"names": "{1: 'a', 2: 'b'}"}, ModelMetadata()),  # which is the class 0?
        ({"names": "a photograph"}, ModelMetadata()),
        ({"names": "[" * 4000}, ModelMetadata()),
        ({"imgsz": "[0, 320]", "stride": "a"}, ModelMetadata()),
        ({"kpt_shape": "[17, 3]", "task": "pose"}, ModelMetadata("pose", keypoints=51)),
        ({}, ModelMetadata()),
    ],
)
def test_metadata_of_other_forms(values, expected):
    assert metadata_of(**values) == expected


def test_metadata_out_of_values():
    assert metadata_from_values({"names": {0: "a"}, "imgsz": [640, 640]}) == ModelMetadata(None, ("a",), (640, 640))


def boxes_beside_scores(points=189, classes=3):
    out = np.zeros((4, 4 + classes, points), np.float32)
    out[:, :2] = RNG.uniform(0, 96, (4, 2, points))
    out[:, 2:4] = RNG.uniform(4, 30, (4, 2, points))
    out[:, 4:] = RNG.uniform(0, 0.01, (4, classes, points))
    return out


def test_the_file_may_say_that_a_model_is_for_something_else():
    outputs = [boxes_beside_scores()]
    assert head_from_outputs(Evidence(["o"], outputs, 4, (96, 96))) is not None
    for task in ("classify", "obb"):
        assert head_from_outputs(Evidence(["o"], outputs, 4, (96, 96), ModelMetadata(task))) is None


def test_the_names_in_the_file_tell_classes_from_objectness():
    outputs = [boxes_beside_scores(classes=3).swapaxes(1, 2).copy()]
    of_three = head_from_outputs(Evidence(["o"], outputs, 4, (96, 96), ModelMetadata(names=("a", "b", "c"))))
    of_two = head_from_outputs(Evidence(["o"], outputs, 4, (96, 96), ModelMetadata(names=("a", "b"))))
    assert (of_three.class_count, of_three.objectness) == (3, False)
    assert (of_two.class_count, of_two.objectness) == (2, True)
    assert head_from_outputs(Evidence(["o"], outputs, 4, (96, 96), classes=2)) == of_two


def test_values_that_are_not_finite_are_no_detections():
    out = boxes_beside_scores()
    head = head_from_outputs(Evidence(["o"], [out], 4, (96, 96)))
    out[:, 4:, 3] = 0.9
    out[0, 0, 3], out[1, 4:, 3] = np.inf, np.nan
    found = head.decode([out], 4, (96, 96))
    assert [int((each.scores > 0.5).sum()) for each in found] == [0, 0, 3, 3]
