"""The report's parts on small cases worked by hand."""

import numpy as np
import pytest

from calib.histograms.histogram import Histogram
from quant.qdq.writer import qdq_model_from_amax
from quant.report.contents.classes import confusion, per_class
from quant.report.contents.flips import flips
from quant.report.contents.layers import layers_from_build, layers_from_qdq
from quant.report.contents.reliability import reliability
from quant.report.contents.tensors import tensor_rows

LABELS = [0, 0, 0, 0, 1, 1, 2, 2]
FP32 = [0, 0, 0, 1, 1, 1, 0, 2]  # 3 of 4, 2 of 2, 1 of 2
INT8 = [0, 1, 2, 1, 1, 1, 2, 0]  # 1 of 4, 2 of 2, 1 of 2
NAMES = ("ant", "bee", "cat")


def test_classes_by_hand(evaluation):
    rows = per_class(evaluation(LABELS, FP32), evaluation(LABELS, INT8), NAMES)
    assert [(r["name"], r["images"], r["top1_fp32"], r["top1"], r["drop"]) for r in rows] == [
        ("ant", 4, 75, 25, 50),
        ("bee", 2, 100, 100, 0),
        ("cat", 2, 50, 50, 0),
    ]
    assert [(r["lost"], r["won"]) for r in rows] == [(2, 0), (0, 0), (1, 1)]
    assert per_class(evaluation(None, FP32), evaluation(None, INT8), NAMES) is None


def test_confusion_by_hand(evaluation):
    found = confusion(evaluation(LABELS, FP32), evaluation(LABELS, INT8), NAMES)
    assert found["against"] == "labels"
    pairs = [(p["label_name"], p["answer_name"], p["fp32"], p["build"], p["added"]) for p in found["pairs"]]
    assert pairs == [("ant", "bee", 1, 2, 1), ("ant", "cat", 0, 1, 1)]  # cat for ant: one before, one after
    assert found["matrix"] == [[-2, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_confusion_without_labels_is_against_fp32(evaluation):
    found = confusion(evaluation(None, FP32), evaluation(None, INT8), None)
    assert found["against"] == "fp32"
    assert [(p["label_name"], p["answer"], p["fp32"], p["build"]) for p in found["pairs"]] == [
        ("0", 2, 0, 2),
        ("0", 1, 0, 1),
        ("2", 0, 0, 1),
    ]


def test_flips_by_hand_surest_first(evaluation):
    before = evaluation(LABELS, FP32, margin=[9, 2, 5, 1, 1, 1, 3, 4])
    after = evaluation(LABELS, INT8, margin=[9, 0.5, 0.25, 1, 1, 1, 7, 2])
    found = flips(before, after, NAMES)
    assert (found["lost"], found["won"], found["changed"]) == (3, 1, 0)
    assert [(row["kind"], row["file"]) for row in found["images"]] == [
        ("lost", "c.png"),  # margins 5, 4, 2
        ("lost", "h.png"),
        ("lost", "b.png"),
        ("won", "g.png"),
    ]
    assert found["images"][0] == {
        "kind": "lost",
        "file": "c.png",
        "label": 0,
        "label_name": "ant",
        "fp32": {"class": 0, "name": "ant", "confidence": 0.5, "margin": 5.0},
        "build": {"class": 2, "name": "cat", "confidence": 0.5, "margin": 0.25},
    }


def test_without_labels_every_other_answer_is_a_change(evaluation):
    found = flips(evaluation(None, FP32), evaluation(None, INT8), None)
    assert (found["lost"], found["won"], found["changed"]) == (None, None, 4)
    assert {row["label"] for row in found["images"]} == {None}


def test_reliability_by_hand(evaluation):
    # Bin 60-70 has 0.62 and 0.68: mean 65, both right, gap 35.
    # Bin 90-100 has 0.92 and 0.98: mean 95, one right of two, gap 45. ECE = (2 * 35 + 2 * 45) / 4 = 40.
    found = reliability("int8", evaluation([0, 0, 0, 0], [0, 0, 0, 1], confidence=[0.62, 0.68, 0.92, 0.98]))
    assert found["ece"] == pytest.approx(40, abs=1e-3)
    assert [(b["low"], b["high"], b["images"], b["accuracy"]) for b in found["bins"]] == [
        (60, 70, 2, 100),
        (90, 100, 2, 50),
    ]
    assert [b["confidence"] for b in found["bins"]] == pytest.approx([65, 95], abs=1e-3)
    assert reliability("int8", evaluation(None, [0, 1])) is None


def histogram_of(values):
    histogram = Histogram()
    histogram.add(np.asarray(values, np.float32))
    return histogram


def test_the_tensor_to_look_at_first_stands_first():
    values = np.random.default_rng(0).normal(size=10_000)
    far = np.concatenate([values, [100.0]])
    histograms = {
        "good": histogram_of(values),
        "crushed": histogram_of(far),
        "unused": histogram_of(far),
        "zero": histogram_of(np.zeros(10)),
    }
    amax = {"zero": 1.0, "unused": 100.0, "good": 4.0, "crushed": 100.0, "bare": 1.0}
    rows = tensor_rows(amax, histograms, {"good", "crushed", "zero"})
    # quantized first, lowest SQNR first, those without one behind
    assert [row["name"] for row in rows] == ["crushed", "good", "zero", "unused", "bare"]
    assert rows[0]["amax_ratio"] == 1
    assert rows[0]["clipped"] == 0
    assert rows[1]["clipped"] == pytest.approx(100 * (np.abs(values) > 4).mean(), abs=0.005)
    assert rows[2]["sqnr_db"] is None
    assert rows[-1]["abs_max"] is None
    assert sum(rows[0]["histogram"]["counts"]) == 10_001


def test_layers_that_read_dequantized_data_and_weights_are_int8(residual_net):
    names = ("input", "relu1", "relu2", "bn2", "sum", "flat", "hidden")
    model = qdq_model_from_amax(residual_net, dict.fromkeys(names, 1.0))
    runs_in = {row["name"]: (row["type"], row["precision"]) for row in layers_from_qdq(model)}
    assert runs_in["conv1"] == ("Conv", "int8")
    assert runs_in["up"] == ("ConvTranspose", "int8")
    assert runs_in["matmul"] == ("MatMul", "int8")
    assert runs_in["residual"] == ("Add", "fp32")
    assert not {"QuantizeLinear", "DequantizeLinear"} & {kind for kind, _ in runs_in.values()}
    found = layers_from_build("int8", {}, model)
    assert found["precisions"]["int8"] == 5  # three convolutions, the former Gemm, MatMul
    assert found["source"] == "Q/DQ nodes"


def test_layers_of_an_engine_are_the_inspector_s():
    graph = {"precisions": {"int8": 1}, "layers": [{"name": "a + b", "type": "Conv", "precision": "int8"}]}
    found = layers_from_build("int8", {"graph": graph}, None)
    assert found == {"build": "int8", "source": "engine inspector", **graph}
    assert layers_from_build("int8", {}, None) is None


def test_times_of_layers_are_given_to_their_nodes():
    layers = [{"name": name, "type": "Conv", "precision": "int8"} for name in ("a + b", "c", "copy", "copy")]
    nodes = [{"name": name, "layers": at} for name, at in (("a", [0]), ("b", [0, 1]), ("c", [1]), ("d", []))]
    graph = {"precisions": {"int8": 2}, "layers": layers, "nodes": nodes}
    found = layers_from_build("int8", {"graph": graph}, None, {"a + b": 0.5, "copy": 0.25})
    assert [layer["ms"] for layer in found["layers"]] == [0.5, None, 0.125, 0.125]
    assert [node["ms"] for node in found["nodes"]] == [0.5, 0.5, None, None]
    assert "ms" not in layers[0]  # what the back end told stays as it was
