"""Builds in children and in this process: which are begun, what is done again, and what is left."""

import threading
import time
from types import SimpleNamespace

import pytest

from quant import child_process
from quant.backend import Build
from quant.child_process import ChildProcess, can_have_children
from quant.errors import BuildError
from quant.onnx_graph.model import load_model
from quant.tensorrt import builds_ahead
from quant.tensorrt.builds_ahead import BuildsAhead, can_build_ahead
from tests.child_builds import OnnxRuntimeAhead
from tests.child_work import LONG, Behaviour, appears

pytestmark = pytest.mark.skipif(not can_have_children(), reason="children end with their parent on Linux only")


@pytest.fixture
def model(colours):
    return load_model(colours / "model.onnx")


@pytest.fixture
def ahead(tmp_path):
    """Builds ahead for a source, which end with the test; nothing is left then."""
    open_ones = []

    def make(source):
        open_ones.append(BuildsAhead(source, tmp_path, source.notes.append))
        return open_ones[-1]

    yield make
    for each in open_ones:
        with each:
            pass
    assert not list(tmp_path.glob(".calib-*"))


def children(folder):
    """Names of the children that have begun."""
    return sorted(path.name for path in folder.glob(".calib-scratch-*/child-*"))


class Failing(OnnxRuntimeAhead):
    """Its children fail at once, and each build of this process is a mark."""

    def __init__(self, folder, **behaviour):
        super().__init__(folder, Behaviour(**{"fails": {"fp32": "no", "fp16": "no", "int8": "no"}, **behaviour}))

    def build(self, model, precision, cache=None, float_nodes=frozenset()):
        self.alone.append(precision)
        return Build(precision, None, None, "", 0)


def test_what_fails_is_built_again_when_no_child_builds_and_nothing_is_begun_after_it(model, ahead, tmp_path):
    source = Failing(tmp_path, waits={"int8": tmp_path / "go"}, begun=tmp_path)
    builds = ahead(source)
    half, int8 = builds.begin(model, "fp16"), builds.begin(model, "int8")
    assert children(tmp_path) == ["child-1", "child-2"]
    seen = []

    def look():
        appears(tmp_path / "int8")
        time.sleep(0.3)
        seen.append((list(source.alone), int8.is_there()))
        (tmp_path / "go").touch()

    thread = threading.Thread(target=look)
    thread.start()
    half.take()
    thread.join(LONG)
    assert seen == [([], False)]
    assert source.alone == ["fp16"]
    assert children(tmp_path) == ["child-2"]
    int8.take()
    late = builds.begin(model, "fp32")
    builds.expect("int8")
    assert (late.is_there(), children(tmp_path)) == (False, [])
    late.take()
    assert source.alone == ["fp16", "int8", "fp32"]
    assert source.notes == [f"{each}: not built beside other work (no); it is built alone" for each in ("fp16", "int8")]


def test_a_child_that_waits_gives_back_its_memory_before_a_build_is_made_alone(model, ahead, tmp_path):
    source = Failing(tmp_path)
    builds = ahead(source)
    half = builds.begin(model, "fp16")
    builds.expect("int8")
    assert children(tmp_path) == ["child-1", "child-2"]
    half.take()
    assert children(tmp_path) == []


def test_fp32_and_fp16_share_a_child_and_int8_has_one_that_gets_ready(model, ahead, tmp_path):
    source = Failing(tmp_path)
    builds = ahead(source)
    builds.expect("int8")
    assert children(tmp_path) == []  # where nothing is being built, the engines may all be there
    builds.begin(model, "fp32")
    builds.begin(model, "fp16")
    assert children(tmp_path) == ["child-1"]
    builds.expect("int8")
    builds.expect("int8")
    assert children(tmp_path) == ["child-1", "child-2"]
    builds.begin(model, "int8")
    builds.begin(model, "int8")
    assert children(tmp_path) == ["child-1", "child-2"]


def test_a_child_whose_builds_are_taken_is_over_and_another_takes_its_place(model, ahead, tmp_path):
    source = OnnxRuntimeAhead(tmp_path)
    builds = ahead(source)
    full, half = builds.begin(model, "fp32"), builds.begin(model, "fp16")
    half.take()
    assert full.is_there()
    assert children(tmp_path) == ["child-1"]
    full.take()
    assert children(tmp_path) == []
    builds.begin(model, "fp16").take()
    assert source.loaded == ["fp16", "fp32", "fp16"]
    assert source.alone == []


def test_what_children_have_built_is_taken_after_a_build_that_was_made_alone(model, ahead, tmp_path):
    source = OnnxRuntimeAhead(tmp_path, Behaviour(fails={"fp16": "kill"}))
    builds = ahead(source)
    full, half = builds.begin(model, "fp32"), builds.begin(model, "fp16")
    half.take()
    full.take()
    assert (source.loaded, source.alone) == (["fp32"], ["fp16"])


def test_builds_that_are_timed_wait_for_the_others_and_are_made_here(model, ahead, tmp_path):
    class Timing(Failing):
        def times_builds(self, precision):
            return precision == "int8"

        def build(self, model, precision, *rest):
            assert half.is_there()
            return super().build(model, precision, *rest)

    source = Timing(tmp_path)
    builds = ahead(source)
    half = builds.begin(model, "fp16")
    builds.expect("int8")
    int8 = builds.begin(model, "int8")
    assert not int8.is_there()
    assert children(tmp_path) == ["child-1"]
    int8.take()
    assert source.alone == ["int8"]
    assert int8.span is None


def test_engines_that_are_there_are_not_built(model, ahead, tmp_path):
    there = Build("fp32", None, b"engine", ".engine", 6)

    class Storing(Failing):
        def stored(self, model, order):
            if order.precision == "fp16":
                raise BuildError("cannot be loaded")
            return there

        def build(self, model, precision, *rest):
            self.stored(model, SimpleNamespace(precision=precision))

    source = Storing(tmp_path)
    builds = ahead(source)
    begun = builds.begin(model, "fp32")
    builds.expect("int8")
    assert (begun.reused, begun.is_there(), begun.take()) == (True, True, there)
    broken = builds.begin(model, "fp16")  # is said where a build may fail
    with pytest.raises(BuildError, match="cannot be loaded"):
        broken.take()
    assert children(tmp_path) == []


def test_where_no_process_can_be_started_all_is_built_here(model, ahead, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(child_process, "started_python", refuse)
    source = Failing(tmp_path)
    builds = ahead(source)
    begun = [builds.begin(model, precision) for precision in ("fp32", "fp16")]
    for each in begun:
        each.take()
    assert source.alone == ["fp32", "fp16"]
    assert "fp32: not built beside other work ([Errno 11] Resource temporarily unavailable)" in source.notes[0]


def test_a_child_that_cannot_be_told_its_work_is_ended(model, ahead, tmp_path, monkeypatch):
    def refuse(child, work):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ChildProcess, "give", refuse)
    source = Failing(tmp_path)
    ahead(source).begin(model, "fp16").take()
    assert source.notes == ["fp16: not built beside other work ([Errno 28] No space left on device); it is built alone"]
    assert (source.alone, children(tmp_path)) == (["fp16"], [])


def test_one_that_is_not_needed_is_ended(model, ahead, tmp_path):
    source = Failing(tmp_path, waits={"fp16": tmp_path / "never"}, begun=tmp_path)
    begun = ahead(source).begin(model, "fp16")
    appears(tmp_path / "fp16")
    begun.drop()
    assert begun.is_there()
    assert children(tmp_path) == []


def test_it_needs_a_processor_for_each_child_and_one_more(monkeypatch):
    monkeypatch.setattr(builds_ahead, "usable_processors", lambda: 3)
    assert can_build_ahead()
    monkeypatch.setattr(builds_ahead, "usable_processors", lambda: 2)
    assert not can_build_ahead()
