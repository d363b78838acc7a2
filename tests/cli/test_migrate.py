"""`calib migrate`: an old cache to a Q/DQ model, and the accuracy of both."""

import json
import shlex
import shutil

import numpy as np
import onnx
import pytest

from tests.cli.test_junit import cases

MODEL = "calib-migrate/model.int8.onnx"


@pytest.fixture
def old(finished):
    """A finished project with nothing of its runs but the bare cache, as TensorRT would leave it."""
    shutil.copy(finished / "calib-out" / "calibration.cache", finished / "old.cache")
    shutil.rmtree(finished / "calib-out")
    return finished


@pytest.fixture
def migrated(calib, old):
    """Runs a migration; returns the outcome and report.json."""

    def run(*arguments, code=0, cache="old.cache"):
        result = calib("migrate", cache, *arguments, cwd=old)
        assert result.code == code, result.err
        return result, json.loads((old / "calib-migrate" / "report.json").read_text())

    return run


def test_the_scales_go_into_a_model_and_old_and_new_are_measured(migrated, calib, old):
    lines = (old / "old.cache").read_text().splitlines()
    (old / "old.cache").write_text("\n".join([*lines, "(Unnamed Layer* 4) [Shuffle]_output: 3c010204", ""]))
    result, document = migrated("--junit", "calib.xml")
    assert [(row["precision"], row["file"]) for row in document["builds"]] == [
        ("fp32", "model.onnx"),
        ("int8", "old.cache"),
        ("int8", MODEL),
    ]
    assert (document["verdict"], document["chosen"], document["exit_code"]) == ("pass", "new", 0)
    assert document["data"]["evaluation"]["images"] == 36  # nothing is calibrated, so no image is held back
    found = document["migration"]
    assert found["forecast"] is True
    assert found["drop_top1"] == 0
    assert found["drop_ci95"][0] < 0 < found["drop_ci95"][1]
    assert found["agreement"] == 100
    shown = calib("cache", "show", MODEL, "--json", cwd=old)
    written = json.loads(shown.out)["scales"]
    tensors = {row["tensor"]: row for row in found["tensors"]}
    assert tensors.keys() == written.keys()
    assert sum(found["counts"].values()) == len(tensors)
    assert tensors["(Unnamed Layer* 4) [Shuffle]_output"]["kind"] == "TensorRT's own"
    for name, row in tensors.items():
        assert row["before"] == written[name]
        assert row["after"] in (None, row["before"])
    assert any(row["after"] for row in tensors.values())
    assert "pass, use model.int8.onnx: model.int8.onnx loses 0.00 points of top-1" in result.out
    assert "migration: of 6 tensors" in result.out
    assert "against the old" in result.out
    page = (old / "calib-migrate" / "report.html").read_text()
    text = (old / "calib-migrate" / "report.md").read_text()
    assert "What became of the old scales" in page
    assert "What became of the old scales" in text
    assert {outcome for outcome, _ in cases(old / "calib.xml").values()} == {"passed"}
    following = f"calib build --model {MODEL}"
    assert f"\n  {following}\n" in result.out
    built = calib(*shlex.split(following)[1:], cwd=old)
    assert built.code == 0 or "tensorrt" in built.error.lower()  # which this machine may lack
    onnx.checker.check_model(onnx.load(old / MODEL))


def test_scales_that_were_bad_before_are_told_from_a_bad_migration(migrated, calib, old, scales):
    scales(old / "old.cache", lambda digits: "33000000")  # crushes every activation to zero
    result, document = migrated("--junit", "calib.xml", code=3)
    assert document["verdict"] == "fail"
    assert "so calibrate with calib run" in document["reason"]
    assert "the old build does no better (old.cache loses" in document["reason"]
    assert document["chosen"] == "fp32"
    kinds = [outcome for outcome, _ in cases(old / "calib.xml").values()]
    assert kinds == ["passed", "failure", "failure"]
    assert "use model.onnx" in result.out
    assert document["next"] == {"why": "calibrate anew", "command": "calib run"}
    assert calib("run", cwd=old).code == 0


def test_a_gap_in_the_cache_is_said_and_what_reads_it_stays_float(migrated, old):
    lines = (old / "old.cache").read_text().splitlines(keepends=True)
    (old / "old.cache").write_text("".join(line for line in lines if not line.startswith("flat: ")))
    lines = [line for line in lines if not line.startswith(("flat: ", "pooled: "))]
    (old / "old.cache").write_text("".join(lines))
    result, document = migrated()
    row = next(row for row in document["migration"]["tensors"] if row["tensor"] == "flat")
    assert (row["kind"], row["before"], row["after"]) == ("had none", None, None)
    assert document["migration"]["float_products"] == ["fc"]
    assert "1 tensors that need a scale have none, 'flat' first" in result.err


def test_the_scale_of_a_mask_is_left_out_of_the_forecast_as_of_builds(migrated, old, write_model):
    """A mask that hides every second pixel, of whose sum and the pixels the larger goes on: the answers stay."""
    mask = np.tile(np.float32([0, np.finfo(np.float32).min]), (8, 4))
    after = [
        onnx.helper.make_node("Add", ["colours", "mask"], ["masked"]),
        onnx.helper.make_node("Max", ["masked", "colours"], ["features"]),
    ]
    write_model(old / "model.onnx", after=after, constants={"mask": mask})
    with (old / "old.cache").open("a") as file:
        file.write("masked: 7c020408\nfeatures: 3c010204\n")
    result, document = migrated()
    assert "1 scales are of tensors that hold a mask, 'masked' first" in result.err
    assert document["builds"][1]["top1"] == 100
    assert {row["tensor"] for row in document["migration"]["tensors"]} >= {"masked", "features"}


def test_without_labels_old_and_new_are_held_against_fp32_and_the_command_repeats_it(migrated, calib, old):
    flat = old / "flat"
    flat.mkdir()
    for i, image in enumerate(sorted((old / "imgs").rglob("*.png"))):
        shutil.copy(image, flat / f"{i}.png")
    result, first = migrated("--data", "flat")
    assert first["verdict"] == "unlabelled"
    assert first["migration"]["drop_top1"] is None
    assert first["migration"]["agreement"] == 100
    assert "both give the same class on 100.00 %" in result.out
    assert first["command"].startswith("calib migrate old.cache --model model.onnx --data flat")
    again = calib(*first["command"].split()[1:], cwd=old)
    assert again.code == 0, again.err
    second = json.loads((old / "calib-migrate" / "report.json").read_text())
    assert second["migration"] == first["migration"]
    further = calib("compare", "model.onnx", "calib-migrate", "--data", "imgs", cwd=old)
    assert further.code == 0, further.err
    assert "model.int8.onnx" in (old / "calib-compare" / "report.md").read_text()


METRIC = """
def certainty(outputs, labels):
    return outputs["logits"].max(axis=1)
"""


def test_a_metric_of_one_s_own_decides_between_old_and_new_too(migrated, old):
    (old / "own.py").write_text(METRIC)
    result, document = migrated("--metric", "own.py:certainty")
    found = document["migration"]
    assert found["drop_top1"] is None
    old_score, new_score = (row["score"] for row in document["metric"]["builds"][1:])
    assert found["metric_drop"] == pytest.approx(old_score - new_score, abs=1e-6)
    assert found["metric_drop_ci95"][0] <= found["metric_drop"] <= found["metric_drop_ci95"][1]
    assert "of the score" in result.out


def test_the_model_of_an_earlier_migration_goes_with_its_report(migrated, old):
    """On a GPU it may have been FP16, of an engine without INT8."""
    _, document = migrated()
    out = old / "calib-migrate"
    (out / "model.int8.onnx").rename(out / "model.fp16.onnx")
    document["migration"]["model"] = "calib-migrate/model.fp16.onnx"
    (out / "report.json").write_text(json.dumps(document))
    _, again = migrated()
    said = "calib-migrate: model.fp16.onnx of an earlier migration is removed, because the new model is model.int8.onnx"
    assert said in again["warnings"]
    assert sorted(path.name for path in out.glob("*.onnx")) == ["model.int8.onnx"]
    (out / "model.fp16.onnx").write_bytes(b"of a run")
    _, again = migrated()
    assert said not in again["warnings"]
    assert (out / "model.fp16.onnx").read_bytes() == b"of a run"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.cache",), "nothing.cache: cannot be read: No such file or directory"),
        (("imgs/red/00.png",), "expected text, found binary data"),
        (("other.cache",), "other.cache: expected scales of the tensors of model.onnx, found 0 of the"),
        (("old.cache", "--model", "nothing.onnx"), "nothing.onnx"),
        (("old.cache", "--data", "nothing"), "nothing"),
        (("old.cache", "--model", "quantized.onnx"), "quantized.onnx"),
        (("held/model.int8.onnx", "--out", "held"), "would be overwritten by the new model; choose another --out"),
        (("held/model.fp16.onnx", "--out", "held"), "would be overwritten by the new model; choose another --out"),
    ],
)
def test_what_cannot_be_migrated_is_one_line_and_writes_nothing(calib, old, arguments, message):
    (old / "other.cache").write_text("TRT-8600-MinMaxCalibration\nrelu: 3c010204\n")
    (old / "held").mkdir()
    for name in ("quantized.onnx", "held/model.int8.onnx", "held/model.fp16.onnx"):
        calib("cache", "convert", "old.cache", name, "--model", "model.onnx", cwd=old)
    result = calib("migrate", *arguments, cwd=old)
    assert result.code == 1
    assert result.out == ""
    errors = [line for line in result.err.splitlines() if line.startswith("calib: error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (old / "calib-migrate").exists()
