"""Builds in several threads by a real TensorRT: each is whole, and is quoted for itself."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from onnx import helper

from quant.errors import BuildError
from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.builder import engine_from_onnx
from quant.tensorrt.building.options import BuilderOptions


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
