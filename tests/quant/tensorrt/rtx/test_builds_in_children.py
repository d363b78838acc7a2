"""Builds by a real TensorRT in children, while this process builds too."""

import pytest

from quant.backend import Build
from quant.child_process import can_have_children
from quant.onnx_graph.model import load_model
from quant.tensorrt.builds_ahead import BuildsAhead
from quant.tensorrt.engines.engine_file import sidecar_path
from tests.child_builds import OnnxRuntimeAhead
from tests.child_work import RtxWork, rtx_engine

pytestmark = pytest.mark.skipif(not can_have_children(), reason="children end with their parent on Linux only")


class OfRtx(OnnxRuntimeAhead):
    """Engines of TensorRT for RTX, which cannot be loaded here."""

    def child_work(self, model, order):
        return RtxWork(model.path, order.precision)

    def from_child(self, folder, model, order):
        data = (folder / "model.engine").read_bytes()
        text = sidecar_path(folder / "model.engine").read_bytes()
        return Build(order.precision, None, data, ".engine", len(data), files={".json": text})


def test_engines_and_descriptions_are_those_of_this_process(rtx, demo_master, tmp_path):
    path = demo_master / "model.onnx"
    source = OfRtx(tmp_path)
    with BuildsAhead(source, tmp_path, source.notes.append) as ahead:
        begun = {precision: ahead.begin(load_model(path), precision) for precision in ("fp32", "fp16")}
        here = {precision: rtx_engine(rtx, path, precision) for precision in begun}
        for precision, each in begun.items():
            build = each.take()
            assert build.payload == here[precision].data
            assert build.files[".json"].decode() == here[precision].description
    assert source.notes == []
    assert list(tmp_path.iterdir()) == []
