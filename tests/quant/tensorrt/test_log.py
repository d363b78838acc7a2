"""TensorRT's log while builds go on beside each other: each keeps its own lines. TensorRT for RTX builds on any CPU."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from onnx import helper

from quant.errors import BuildError
from quant.settings.batch_range import BatchRange
from quant.tensorrt.bindings import TensorRTError, load_tensorrt_for_rtx
from quant.tensorrt.building.builder import engine_from_onnx
from quant.tensorrt.building.options import BuilderOptions
from quant.tensorrt.log import _SECTIONS, log_section


@pytest.fixture(scope="module")
def rtx():
    try:
        return load_tensorrt_for_rtx()
    except TensorRTError as error:
        pytest.skip(str(error))


def test_a_thread_logs_for_its_own_work():
    met = Barrier(2, timeout=120)

    def work(name):
        with log_section() as log:
            met.wait()
            _SECTIONS.add(f"{name} failed", is_error=True)
            _SECTIONS.add(f"{name} is slow", is_error=False)
            met.wait()
        return log.errors, log.warnings

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, "ab")) == [(["a failed"], ["a is slow"]), (["b failed"], ["b is slow"])]


def test_a_thread_of_nobodys_logs_for_all_and_one_that_is_followed_for_its_work():
    with log_section() as log, log_section() as inner, ThreadPoolExecutor(1) as pool:
        pool.submit(_SECTIONS.add, "of TensorRT's own thread", is_error=True).result()

        def build():
            with inner.followed():
                _SECTIONS.add("of the build", is_error=True)

        pool.submit(build).result()
    assert log.errors == ["of TensorRT's own thread"]
    assert inner.errors == ["of TensorRT's own thread", "of the build"]


def test_builds_at_the_same_time_are_quoted_for_themselves(rtx, residual_net, graph_of):
    nodes = [helper.make_node("Det", ["x"], ["y"], name="determinant")]
    refused = graph_of(nodes, {"x": ["N", 3, 3]}, {"y": ["N"]})
    met = Barrier(3, timeout=120)

    def build(proto):
        met.wait()
        size = BatchRange(2, 2, 2)
        try:
            return engine_from_onnx(proto, "fp32", size, BuilderOptions(), tensorrt=rtx, capability="8.9")
        except BuildError as error:
            return str(error)

    with ThreadPoolExecutor(3) as pool:
        first, error, second = pool.map(build, [residual_net, refused, residual_net])
    assert "'determinant' (Det)" in error
    for built in (first, second):
        assert len(built.data) > 1000
        assert not any("Det" in line for line in built.warnings)
