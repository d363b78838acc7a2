"""The embedded detection sample: small, of held-out digits, and its detector finds most of them."""

import io
import json
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


def test_the_literal_lines_of_the_guide(calib, tmp_path):
    assert calib("demo", "--task", "detect", "d", cwd=tmp_path).code == 0
    result = calib("run", "--data", "imgs/", cwd=tmp_path / "d")
    assert result.code == 0, result.err
    document = json.loads((tmp_path / "d/calib-out/report.json").read_text())
    builds = {row["precision"]: row for row in document["builds"]}
    assert document["verdict"] == "pass"
    assert builds["fp32"]["map50"] > 75
    assert builds["fp32"]["map"] > 50
    assert builds["fp16"]["drop_map"] < 0.2
    assert builds["int8"]["drop_map"] <= 1.0
    assert [row["head"] for row in document["detection"]["head_kept"]["builds"]] == ["float", "int8"]
    assert document["data"]["evaluation"]["images"] == 192
