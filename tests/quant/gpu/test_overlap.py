"""Builds beside each other on a GPU: the engines, the cache and the verdict are those of builds in turn."""

import json
import shutil
import threading

import numpy as np
import pytest

from quant.jobs.run import run
from quant.settings.calib_toml import settings_from_options
from quant.tensorrt.backend import TensorRTBackend
from quant.tensorrt.engines.layers import graph_report

pytestmark = pytest.mark.gpu


@pytest.fixture
def ran(demo_master, tmp_path, monkeypatch):
    """Runs the sample at level 0; gives its report and its folder."""
    project = shutil.copytree(demo_master, tmp_path / "digits")
    monkeypatch.chdir(project)

    def go(out):
        settings = settings_from_options(
            {
                "backend": "tensorrt",
                "builder_level": 0,
                "num_images": 256,
                "collector": "cpu",
                "out": project / out,
                "cache": project / out / "calibration.cache",
            }
        )
        run(settings)
        return json.loads((project / out / "report.json").read_text()), project / out

    return go


def figures(report):
    """Accuracy and layers of each build."""
    keys = ("precision", "top1", "drop_top1", "agreement", "sqnr_db")
    return [[build.get(key) for key in keys] + [build["tensorrt"]["graph"]] for build in report["builds"]]


def test_a_run_comes_to_the_same_as_with_builds_in_turn(ran, monkeypatch):
    threads = []
    build = TensorRTBackend.build

    def noted(self, model, precision, *rest):
        threads.append((precision, threading.current_thread()))
        return build(self, model, precision, *rest)

    monkeypatch.setattr(TensorRTBackend, "build", noted)
    beside, first = ran("beside")
    assert all(thread is not threading.main_thread() for _, thread in threads[:3])
    begin = TensorRTBackend.__init__

    def in_turn(self, *arguments, **options):
        begin(self, *arguments, **options)
        self.overlaps = False

    monkeypatch.setattr(TensorRTBackend, "__init__", in_turn)
    turns, second = ran("turns")
    assert all(thread is threading.main_thread() for _, thread in threads[3:])
    assert (first / "calibration.cache").read_bytes() == (second / "calibration.cache").read_bytes()
    assert figures(beside) == figures(turns)
    assert beside["verdict"] == turns["verdict"]
    assert beside["warnings"] == turns["warnings"]
    assert beside["timeline"]["build int8"][1] <= beside["timeline"]["evaluation: latency"][0]


def test_three_builds_at_once_answer_as_one_alone(digits, digit_images, digit_cache, backend):
    precisions = ("fp32", "fp16", "int8")
    alone, beside = backend(), backend()
    expected = {p: alone.build(digits, p, digit_cache if p == "int8" else None) for p in precisions}
    found = {}

    def build(precision):
        found[precision] = beside.build(digits, precision, digit_cache if precision == "int8" else None)

    threads = [threading.Thread(target=build, args=(precision,)) for precision in precisions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert set(found) == set(precisions)
    for precision in precisions:
        np.testing.assert_array_equal(
            found[precision].runnable.run(digit_images)[0], expected[precision].runnable.run(digit_images)[0]
        )
        assert graph_report(found[precision].engine.layer_text(), digits.proto) == graph_report(
            expected[precision].engine.layer_text(), digits.proto
        )


def test_an_engine_that_threads_share_gives_each_its_own_answers(digits, digit_images, backend):
    (images,) = digit_images.values()
    (name,) = digit_images
    engine = backend().build(digits, "fp32").runnable
    parts = np.array_split(images, 4)
    expected = [engine.run({name: part})[0] for part in parts]
    found = [[] for _ in parts]

    def work(i):
        for _ in range(50):
            found[i].append(engine.run({name: parts[i]})[0])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    for mine, right in zip(found, expected, strict=True):
        assert len(mine) == 50
        for each in mine:
            np.testing.assert_array_equal(each, right)


def test_above_level_0_builds_do_not_overlap(backend):
    assert backend(level=0).overlaps
    assert not backend(level=1).overlaps
    assert not backend(level=None).overlaps
