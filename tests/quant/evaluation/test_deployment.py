"""Where a build as ONNX Runtime deploys it differs from the build as it is written."""

from dataclasses import replace

import numpy as np
import pytest

from quant.evaluation import deployment
from quant.evaluation.accuracy import Evaluation
from quant.evaluation.deployment import deployment_line, differs, missing_instructions
from quant.evaluation.fidelity import ChannelGroup, OutputFidelity


def evaluation(*decibels, right=None, groups=()):
    """An evaluation of outputs a, b, ... with these SQNR; of labelled images if it is said which ones are right."""
    labels = None if right is None else np.zeros(len(right), np.int64)
    predicted = None if right is None else 1 - np.asarray(right, np.int64)
    fidelity = tuple(OutputFidelity("abc"[i], level, groups) for i, level in enumerate(decibels))
    return Evaluation(
        100 if right is None else len(right), labels, predicted, None, None, None, 1.0, max(decibels), fidelity=fidelity
    )


def both(written, deployed):
    return replace(written, written=written, deployed=deployed)


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """Pretends a kind of processor and its flags."""

    def pretend(machine, flags):
        information = tmp_path / "cpuinfo"
        information.write_text(f"processor : 0\nflags\t\t: fpu sse {flags}\n")
        monkeypatch.setattr(deployment.platform, "machine", lambda: machine)
        monkeypatch.setattr(deployment, "Path", lambda _: information)

    return pretend


@pytest.mark.parametrize(
    ("written", "deployed", "expected"),
    [
        ([39.1], [17.6], True),
        ([39.1], [38.0], True),
        ([39.1], [38.2], False),  # kernels round in another order
        ([17.6], [39.1], False),  # better is no fault
        ([46.0, 30.0], [46.0, 12.0], True),  # the second output alone
        ([46.0, 30.0], [46.0, 29.5], False),
        ([float("inf")], [float("inf")], False),
        ([float("inf")], [80.0], False),  # what is nearly exact is exact enough
        ([float("inf")], [20.0], True),
    ],
)
def test_a_fall_of_more_than_a_decibel_in_any_output_is_no_noise(written, deployed, expected):
    assert differs(both(evaluation(*written), evaluation(*deployed))) is expected


def test_a_group_of_channels_that_falls_counts_where_the_whole_output_does_not():
    groups = [(ChannelGroup(4, 6, 3, level), ChannelGroup(0, 3, 4, 46.0)) for level in (30.0, 9.0)]
    written, deployed = (evaluation(46.0, groups=each) for each in groups)
    assert differs(both(written, deployed))
    assert "SQNR of output 'a' 9.0 dB instead of 30.0" in deployment_line("INT8", both(written, deployed))


@pytest.mark.parametrize(("lost", "expected"), [(0, False), (2, False), (15, True)])
def test_answers_that_are_lost_beyond_their_interval_are_no_noise(lost, expected):
    written = evaluation(30.0, right=[True] * 100)
    deployed = evaluation(30.0, right=[False] * lost + [True] * (100 - lost))
    assert differs(both(written, deployed)) is expected


def test_a_build_with_one_form_differs_from_nothing():
    assert not differs(evaluation(30.0))
    assert deployment_line("INT8", evaluation(30.0)) is None
    assert deployment_line("INT8", both(evaluation(30.0), evaluation(30.0))) is None


def test_the_line_has_both_figures_the_reason_and_the_cure(processor):
    processor("x86_64", "avx2")
    written, deployed = evaluation(39.1, right=[True] * 40), evaluation(17.6, right=[True] * 30 + [False] * 10)
    line = deployment_line("INT8", both(written, deployed))
    assert line.startswith(
        "INT8 as ONNX Runtime deploys it here computes in another way (SQNR of output 'a' 17.6 dB instead of 39.1, "
        "top-1 75.00 % instead of 100.00, on 40 images): this processor has no AVX-512 VNNI or AVX-VNNI or AMX, and "
        "without one of these its integer kernels saturate."
    )
    assert "session.x64quantprecision = 1" in line
    assert "session.disable_quant_qdq = 1" in line


@pytest.mark.parametrize(
    ("machine", "flags", "missing"),
    [
        ("x86_64", "avx2", True),
        ("AMD64", "avx2 avx512f", True),
        ("x86_64", "avx512_vnni", False),
        ("x86_64", "avx_vnni", False),
        ("x86_64", "amx_tile amx_int8", False),
        ("x86_64", "no_avx_vnni_here", True),
        ("aarch64", "", False),
    ],
)
def test_the_instruction_sets_that_a_processor_lacks(processor, machine, flags, missing):
    processor(machine, flags)
    assert missing_instructions() == ("AVX-512 VNNI or AVX-VNNI or AMX" if missing else "")


def test_on_a_processor_that_lacks_nothing_the_line_blames_none(processor):
    processor("aarch64", "")
    line = deployment_line("INT8", both(evaluation(39.1), evaluation(17.6)))
    assert "on some processors its integer kernels saturate" in line
    assert "AVX" not in line
