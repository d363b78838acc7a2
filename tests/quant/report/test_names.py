"""What a report calls its builds."""

import pytest

from quant.report.views.names import baseline_name, build_names, chosen_name, examined_name


def builds(*rows):
    return [{"precision": precision, "file": file} for precision, file in rows]


@pytest.fixture
def run():
    """A run's report: three precisions."""
    rows = builds(("fp32", "net.onnx"), ("fp16", None), ("int8", "model.int8.onnx"))
    return {"builds": rows, "examined": "int8", "chosen": "int8"}


@pytest.fixture
def comparison():
    """A comparison of two INT8 models of two runs."""
    return {
        "builds": builds(("int8", "a/first.onnx"), ("int8", "b/second.onnx")),
        "compared": [{"role": "baseline"}, {"role": "candidate"}],
        "examined": "int8",
        "chosen": "candidate",
    }


def test_builds_go_by_their_precisions(run):
    assert build_names(run) == ["FP32", "FP16", "INT8"]
    assert (baseline_name(run), examined_name(run), chosen_name(run)) == ("FP32", "INT8", "INT8")


def test_two_builds_of_one_precision_go_by_their_files(comparison):
    assert build_names(comparison) == ["first.onnx", "second.onnx"]
    assert (baseline_name(comparison), examined_name(comparison)) == ("first.onnx", "second.onnx")


@pytest.mark.parametrize(("role", "name"), [("baseline", "first.onnx"), ("candidate", "second.onnx")])
def test_what_a_comparison_chose_goes_by_its_file(comparison, role, name):
    assert chosen_name(comparison | {"chosen": role}) == name


def test_two_files_of_one_name_go_by_their_paths(comparison):
    rows = builds(("int8", "a/model.int8.onnx"), ("int8", "b/model.int8.onnx"))
    document = comparison | {"builds": rows}
    assert build_names(document) == ["a/model.int8.onnx", "b/model.int8.onnx"]
    assert (examined_name(document), chosen_name(document)) == ("b/model.int8.onnx", "b/model.int8.onnx")


def test_a_baseline_alone_is_not_looked_into(run):
    assert examined_name(run | {"builds": run["builds"][:1], "examined": None}) == ""


def test_what_is_chosen_may_be_no_build_of_the_report(run):
    assert chosen_name(run | {"builds": run["builds"][2:], "chosen": "fp32"}) == "FP32"
