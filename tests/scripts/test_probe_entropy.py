"""TensorRT's own answers on tensors made to test it, and the rules that give them."""

import re
from pathlib import Path

import pytest
from entropy_probes import BATCH, PROBES, batches_of, model_of
from probe_entropy import compare, stream_of

from calib import EntropyCalibrator, read_cache
from quant import OnnxModel, collect_statistics

ROOT = Path(__file__).resolve().parents[2]


def test_the_rule_gives_tensorrt_s_answers_and_what_the_docs_say_of_it(capsys):
    without = "candidates of one non-empty bin too"
    compare(ROOT / "tests" / "calib" / "data", without)
    shown = capsys.readouterr().out
    agreeing = {label: int(count) for label, count in re.findall(r"^\| (.+) \| (\d+) of 110 \|$", shown, re.M)}
    assert agreeing == {"calib --match-tensorrt": 110, without: 61}
    words = " ".join((ROOT / "docs" / "entropy.md").read_text(encoding="utf-8").split())
    assert "The rule gives TensorRT's amax on all 110, and on 61 of them without step 5" in words


def test_the_batches_that_tensorrt_calibrates_with_are_those_of_the_probes():
    """The script gives TensorRT a stream and a model; ONNX Runtime runs both, and also gives TensorRT's answers."""
    tensors = batches_of(PROBES["probes-shapes.cache"]())
    calibrator = EntropyCalibrator(stream_of(tensors), match_tensorrt=True)
    collect_statistics(OnnxModel(Path("probes.onnx"), model_of(list(tensors)), ""), calibrator)
    assert calibrator.statistics.images == 8 * BATCH
    answers = read_cache(ROOT / "tests" / "calib" / "data" / "probes-shapes.cache").amax
    found = calibrator.compute_amax()
    assert len(answers) > 40
    assert {name: found[name] for name in answers} == pytest.approx(answers, rel=1e-4)
