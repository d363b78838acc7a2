"""The embedded sample: small, honest (held-out digits only), and worth demonstrating on."""

import io
import zipfile
from collections import Counter
from importlib.resources import files

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

SAMPLE = files("calib") / "sample"


@pytest.fixture(scope="module")
def images() -> dict[str, Image.Image]:
    with zipfile.ZipFile(io.BytesIO((SAMPLE / "digits.zip").read_bytes())) as archive:
        return {name: Image.open(io.BytesIO(archive.read(name))) for name in archive.namelist()}


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load_from_string((SAMPLE / "model.onnx").read_bytes())


def test_zip_holds_899_small_grey_pngs_in_ten_class_folders(images):
    counts = Counter(name.split("/")[0] for name in images)
    assert len(images) == 899
    assert sorted(counts) == list("0123456789")
    # scikit-learn ships 174 to 183 of each digit; a stratified half holds 87 to 92 of each.
    assert all(87 <= count <= 92 for count in counts.values())
    assert {(i.format, i.mode, i.size) for i in images.values()} == {("PNG", "L", (8, 8))}


def test_zip_unpacks_inside_its_folder(images):
    assert all(name.count("/") == 1 and name.endswith(".png") and ".." not in name for name in images)


def test_images_are_those_of_scikit_learn(images):
    digits = pytest.importorskip("sklearn.datasets", reason="scikit-learn is the oracle here").load_digits()
    for name, image in images.items():
        label, index = name.removesuffix(".png").split("/")
        assert digits.target[int(index)] == int(label)
        np.testing.assert_array_equal(np.asarray(image), np.round(digits.images[int(index)] * 255 / 16))


def test_model_is_right_on_most_held_out_images(images, model):
    batch = np.stack([np.asarray(image) for image in images.values()])[:, None].astype(np.float32) / 255
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input": batch})
    assert logits.shape == (899, 10)
    assert np.mean(logits.argmax(1) == [int(name[0]) for name in images]) >= 0.96


def test_model_is_valid_and_within_what_tensorrt_8_6_reads(model):
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    assert model.producer_name == "calib-sample"
    shapes = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [["N", 1, 8, 8], ["N", 10]]


def test_model_has_batchnorm_to_fold_and_two_kinds_of_shortcut(model):
    producer = {output: node for node in model.graph.node for output in node.output}
    additions = [node for node in model.graph.node if node.op_type == "Add"]
    shortcuts = [[producer[name].op_type for name in node.input] for node in additions]
    assert shortcuts == [["BatchNormalization", "Relu"], ["BatchNormalization", "BatchNormalization"]]
    convolutions = {node.output[0] for node in model.graph.node if node.op_type == "Conv"}
    normalised = {node.input[0] for node in model.graph.node if node.op_type == "BatchNormalization"}
    assert convolutions == normalised


def test_folder_is_small_enough_to_ship():
    assert sum(len(file.read_bytes()) for file in SAMPLE.iterdir() if file.is_file()) < 500_000
