"""The embedded detection sample: small, of held-out digits, and its detector finds most of them."""

import io
import zipfile
from importlib.resources import files

import numpy as np
import onnx
import pytest
from PIL import Image

from quant.onnx_graph.metadata import metadata_from_model
from quant.qdq.output_head import head_nodes

SAMPLE = files("calib") / "sample" / "detection"


@pytest.fixture(scope="module")
def members():
    with zipfile.ZipFile(io.BytesIO((SAMPLE / "scenes.zip").read_bytes())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_scenes_are_small_grey_and_have_their_labels(members):
    images = sorted(name for name in members if name.startswith("imgs/"))
    assert len(images) == 288
    for name in images:
        image = Image.open(io.BytesIO(members[name]))
        assert (image.mode, image.size) == ("L", (96, 72))
    labels = [members[name.replace("imgs/", "labels/").replace(".jpg", ".txt")].decode() for name in images]
    rows = [[float(word) for word in line.split()] for text in labels for line in text.splitlines()]
    assert 600 < len(rows) < 1800
    assert {int(row[0]) for row in rows} == set(range(10))
    assert np.array(rows)[:, 1:].min() > 0 and np.array(rows)[:, 1:].max() < 1


def test_the_detector_says_what_it_is_and_its_head_is_found():
    model = onnx.load_from_string((SAMPLE / "model.onnx").read_bytes())
    onnx.checker.check_model(model, full_check=True)
    found = metadata_from_model(model)
    assert (found.task, found.names, found.size, found.stride) == ("detect", tuple("0123456789"), (96, 96), 8)
    nodes = {node.name: node for node in model.graph.node}
    head = [nodes[name] for name in head_nodes(model)]
    assert sorted(node.op_type for node in head) == ["Conv"] * 3  # boxes, scores, DFL's mean
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]


def test_folder_is_small_enough_to_ship():
    assert sum(len(file.read_bytes()) for file in SAMPLE.iterdir()) < 1_000_000
