"""`calib run` where INT8 loses too much."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quant.onnx_graph.model import load_model
from tests.int8_oracle import run_exactly

MAKERS = ("stem/bn.weight", "stem/bn.bias", "block1/bn2.weight", "block1/bn2.bias")
READERS = ("block1/conv1.weight", "block2/conv1.weight", "block2/conv_shortcut.weight")


@pytest.fixture
def loud_demo(few_digits):
    """The sample with two of 16 channels in its first residual stream 256 times louder; its function is the same."""
    model = onnx.load(few_digits / "model.onnx")
    inputs = {"input": np.random.default_rng(0).uniform(size=(4, 1, 8, 8)).astype(np.float32)}
    expected = run_exactly(model, inputs)["logits"]
    for tensor in model.graph.initializer:
        if tensor.name in (*MAKERS, *READERS):
            values = numpy_helper.to_array(tensor).copy()
            if tensor.name in MAKERS:
                values[:2] *= 256
            else:
                values[:, :2] /= 256
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    np.testing.assert_allclose(run_exactly(model, inputs)["logits"], expected, rtol=1e-4, atol=1e-4)
    onnx.save(model, few_digits / "model.onnx")
    return few_digits


def int8_of(found):
    return next(row for row in found["builds"] if row["precision"] == "int8")


def test_a_run_recovers_what_loud_channels_cost(calib, report, loud_demo):
    lost = calib("run", "--data", "imgs", "--algo", "minmax", "--recover", "off", "--quiet", cwd=loud_demo)
    before = report(loud_demo)
    assert before["recovery"] is None
    assert int8_of(before)["drop_top1"] > 1
    assert before["chosen"] == "fp16" or lost.code == 3
    result = calib("run", "--data", "imgs", "--algo", "minmax", cwd=loud_demo)
    found = report(loud_demo)
    assert (result.code, found["verdict"]) == (0, "pass")
    assert int8_of(found)["drop_top1"] <= 1 < int8_of(before)["drop_top1"]
    assert int8_of(found)["sqnr_db"] > int8_of(before)["sqnr_db"] + 10
    recovery = found["recovery"]
    assert (recovery["used"], recovery["int8_share"], recovery["float_nodes"]) == (True, 100, [])
    assert recovery["steps"][0]["step"] == "equalize"
    assert recovery["steps"][0]["kept"]
    assert "INT8 loses too much" in result.err
    page = (loud_demo / "calib-out" / "report.html").read_text()
    text = (loud_demo / "calib-out" / "report.md").read_text()
    assert "Recovery" in page
    assert "equalize" in text


def test_what_was_recovered_can_be_used_again_and_caches_are_not_mixed_up(calib, report, loud_demo):
    calib("run", "--data", "imgs", "--algo", "minmax", "--quiet", cwd=loud_demo)
    found = report(loud_demo)
    out = loud_demo / "calib-out"
    given, recovered = (load_model(path) for path in (loud_demo / "model.onnx", out / "recovered.onnx"))
    assert json.loads((out / "recovered.json").read_text())["source"]["model"] == recovered.sha256
    same = calib(
        "run", "--model", "calib-out/recovered.onnx", "--data", "imgs", "--algo", found["recovery"]["algo"],
        "--cache", "calib-out/recovered.cache", "--cache-only", "--out", "again", "--quiet", cwd=loud_demo,
    )  # fmt: skip
    assert same.code == 0
    again = json.loads((loud_demo / "again" / "report.json").read_text())
    assert int8_of(again)["top1"] == int8_of(found)["top1"]
    wrong = calib(
        "run", "--data", "imgs", "--cache", "calib-out/recovered.cache", "--cache-only", "--out", "third", "--quiet",
        "--algo", found["recovery"]["algo"], cwd=loud_demo,
    )  # fmt: skip
    assert wrong.code == 1
    assert "another model" in wrong.error
    assert given.sha256 != recovered.sha256


def test_the_percentile_that_was_asked_for_is_that_of_the_recovered_scales(calib, report, loud_demo):
    options = ("--algo", "percentile", "--percentile", "99.9", "--recover", "equalize")
    assert calib("run", "--data", "imgs", *options, "--quiet", cwd=loud_demo).code == 0
    assert report(loud_demo)["recovery"]["algo"] == "percentile"
    out = loud_demo / "calib-out"
    kept = json.loads((out / "recovered.json").read_text())
    assert (kept["algorithm"], kept["parameters"]) == ("percentile", {"percentile": 99.9})
    again = calib(
        "run", "--model", "calib-out/recovered.onnx", "--data", "imgs", *options, "--cache",
        "calib-out/recovered.cache", "--cache-only", "--out", "again", "--quiet", cwd=loud_demo,
    )  # fmt: skip
    assert again.code == 0
    other = ("--algo", "percentile", "--percentile", "99.99")
    refused = calib(
        "run", "--model", "calib-out/recovered.onnx", "--data", "imgs", *other, "--cache",
        "calib-out/recovered.cache", "--cache-only", "--out", "third", "--quiet", cwd=loud_demo,
    )  # fmt: skip
    assert refused.code == 1


def test_where_int8_is_good_nothing_is_searched(calib, report, few_digits):
    result = calib("run", "--data", "imgs", cwd=few_digits)
    found = report(few_digits)
    assert (result.code, found["verdict"], found["recovery"]) == (0, "pass", None)
    assert "recovering" not in result.err
    assert not (few_digits / "calib-out" / "recovered.onnx").exists()


def test_a_step_that_does_not_exist_is_named(calib, few_digits):
    result = calib("run", "--data", "imgs", "--recover", "equalize,magic", cwd=few_digits)
    assert result.code == 1
    assert "expected auto, off, or some of equalize, ranges, bias, weights, float, found 'magic'" in result.error


@pytest.mark.charts
def test_what_a_search_left_in_float_is_a_file_that_gives_the_same_build_again(
    calib, report, loud_demo, without_charts
):
    options = ("--data", "imgs", "--algo", "minmax", "--quiet")
    calib("run", *options, "--recover", "float", cwd=loud_demo)
    found, out = report(loud_demo), loud_demo / "calib-out"
    left = found["recovery"]["float_nodes"]
    assert left
    assert found["recovery"]["precisions"] == "precision.toml"
    assert {row["node"] for row in found["recovery"]["sensitivity"] if row["precision"] == "float"} == set(left)
    assert "of the work" in (out / "precision.toml").read_text()
    assert "Sensitivity of products" in (out / "report.html").read_text()
    without_charts()
    kept = (out / "precision.toml").rename(loud_demo / "mine.toml")
    calib("run", *options, "--recover", "off", "--precisions", kept.name, "--out", "again", cwd=loud_demo)
    again = json.loads((loud_demo / "again" / "report.json").read_text())
    assert again["precisions"]["float_nodes"] == left
    assert int8_of(again)["sha256"] == int8_of(found)["sha256"]
    calib("run", *options, "--recover", "off", cwd=loud_demo)
    assert not (out / "precision.toml").exists()


def test_recovery_keeps_what_a_file_leaves_in_float_and_adds_to_it(calib, report, loud_demo):
    (loud_demo / "mine.toml").write_text("[[float]]\nnodes = ['logits']\nwhy = 'mine'\n")
    options = ("--data", "imgs", "--algo", "minmax", "--quiet", "--recover", "float", "--precisions", "mine.toml")
    calib("run", *options, cwd=loud_demo)
    recovery = report(loud_demo)["recovery"]
    assert "logits" in recovery["float_nodes"]
    assert len(recovery["float_nodes"]) > 1
    assert "logits" not in {row["node"] for row in recovery["sensitivity"]}  # it is not up for choice
    text = (loud_demo / "calib-out" / "precision.toml").read_text()
    assert 'why = "mine"' in text
    assert all(name in text for name in recovery["float_nodes"])
