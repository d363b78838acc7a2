"""`calib sensitivity`, and `--precisions`: products in float by a file."""

import hashlib
import json

import onnx
import pytest

from tests.int8_oracle import run_exactly, sqnr_db


def quantized_products(model):
    """Names of the products whose first input comes out of a DequantizeLinear."""
    writers = {name: node.op_type for node in model.graph.node for name in node.output}
    kinds = ("Conv", "Gemm", "MatMul")
    return {
        node.name
        for node in model.graph.node
        if node.op_type in kinds and writers.get(node.input[0]) == "DequantizeLinear"
    }


def test_each_product_is_quantized_alone_and_the_noisiest_comes_first(calib, demo):
    result = calib("sensitivity", "--data", "imgs", "--quiet", cwd=demo)
    assert result.code == 0
    found = json.loads((demo / "calib-out" / "sensitivity.json").read_text())
    rows = found["products"]
    levels = [row["sqnr_db"] for row in rows]
    assert levels == sorted(levels)
    assert sum(row["macs_share"] for row in rows) == pytest.approx(100, abs=0.01)
    assert {row["node"] for row in rows} == quantized_products(int8_of(calib, demo))
    assert found["images"] == 256
    assert found["labelled"]
    assert all(0 <= row["changed"] <= 256 and abs(row["lost"]) <= 100 * row["changed"] / 256 for row in rows)
    assert rows[0]["node"] in result.out
    assert all(len(line) <= 80 for line in result.out.splitlines())
    plot = (demo / "calib-out" / "sensitivity.svg").read_text()
    assert rows[0]["node"] in plot


def int8_of(calib, few_digits):
    assert calib("run", "--data", "imgs", "--out", "whole", "--quiet", cwd=few_digits).code == 0
    return onnx.load(few_digits / "whole" / "model.int8.onnx")


def test_its_figure_is_that_of_a_build_with_all_others_in_float(calib, few_digits):
    """The same by another way: a run with a precision file, on the same images, in exact arithmetic."""
    calib("sensitivity", "--data", "imgs", "--eval", "imgs", "--quiet", cwd=few_digits)
    rows = json.loads((few_digits / "calib-out" / "sensitivity.json").read_text())["products"]
    worst, *others = (row["node"] for row in rows)
    (few_digits / "mine.toml").write_text(f"[[float]]\nnodes = {json.dumps(others)}\nwhy = 'a test'\n")
    result = calib("run", "--data", "imgs", "--precisions", "mine.toml", "--out", "alone", "--quiet", cwd=few_digits)
    assert result.code == 0
    built = onnx.load(few_digits / "alone" / "model.int8.onnx")
    assert quantized_products(built) == {worst}
    from datasets import BatchStream, Preprocessing, open_source

    source = open_source(few_digits / "imgs")
    preprocessing = Preprocessing.from_spec(str(few_digits / "preprocess.toml")).bound_to((None, 1, 8, 8), "float32")
    stream = BatchStream(source, range(256), preprocessing=preprocessing, batch_size=256, input_name="input")
    inputs = next(iter(stream)).inputs
    expected = run_exactly(onnx.load(few_digits / "model.onnx"), inputs)["logits"]
    level = sqnr_db(run_exactly(built, inputs)["logits"], expected)
    assert rows[0]["sqnr_db"] == pytest.approx(level, abs=0.3)  # the command weighs images, the oracle values


def test_a_run_with_a_file_says_so_in_its_report(calib, report, few_digits):
    content = "[[float]]\nnodes = ['block1/*']\nwhy = 'I say so'\n"
    (few_digits / "mine.toml").write_text(content)
    result = calib("run", "--data", "imgs", "--precisions", "mine.toml", cwd=few_digits)
    assert result.code == 0
    found = report(few_digits)
    assert found["precisions"] == {
        "path": "mine.toml",
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
        "float_nodes": ["block1/conv1", "block1/conv2"],
    }
    assert "--precisions mine.toml" in found["command"]
    built = onnx.load(few_digits / "calib-out" / "model.int8.onnx")
    assert not quantized_products(built) & {"block1/conv1", "block1/conv2"}
    assert quantized_products(built)
    assert found["precisions"]["sha256"] in (few_digits / "calib-out" / "report.html").read_text()


def test_calib_toml_may_name_the_file(calib, report, few_digits):
    (few_digits / "mine.toml").write_text("[[float]]\nnodes = ['stem/conv']\n")
    with (few_digits / "calib.toml").open("a") as file:
        file.write('\nprecisions = "mine.toml"\n')
    assert calib("run", "--data", "imgs", cwd=few_digits).code == 0
    assert report(few_digits)["precisions"]["float_nodes"] == ["stem/conv"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--precisions", "none.toml"), "none.toml: cannot be read: No such file or directory"),
        (("--precisions", "mine.toml"), "mine.toml: float 1: no product is called 'stem/con'; near it are 'stem/conv'"),
        (("--precisions", "mine.toml", "--precision", "fp16"), "precisions: only INT8 leaves products in float"),
        (("--precisions", "calib-out/precision.toml"), "would be replaced or removed by this run; copy it"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(calib, few_digits, options, said):
    (few_digits / "mine.toml").write_text("[[float]]\nnodes = ['stem/con']\n")
    result = calib("run", "--data", "imgs", *options, cwd=few_digits)
    assert result.code == 1
    assert said in result.error
    assert not (few_digits / "calib-out").exists() or not list((few_digits / "calib-out").iterdir())
