"""What a child is told to build, before TensorRT and a GPU are needed."""

import pickle

import pytest

from calib.caches.cache import CalibrationCache
from quant.errors import BuildError
from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.options import BuilderOptions
from quant.tensorrt.child_build import ChildBuild
from quant.tensorrt.engine_build import EngineOrder


@pytest.fixture
def work(residual_net, saved):
    """An INT8 build with all that an order may hold."""
    model = saved(residual_net)
    cache = CalibrationCache("TRT-8600-EntropyCalibration2", {"input": 0.5}, ("sum",))
    options = BuilderOptions(level=0, timing_cache=model.path.with_name("timing.cache"))
    order = EngineOrder("int8", BatchRange(1, 2, 4), options, cache, frozenset({"conv1"}), {"input": (3, 8, 8)})
    return ChildBuild(model.path, model.sha256, order)


def test_it_arrives_as_it_was_sent(work):
    assert pickle.loads(pickle.dumps(work)) == work


def test_a_model_that_has_changed_since_is_not_built(work, tmp_path):
    work.model.write_bytes(work.model.read_bytes() + b"\x72\x00")  # an empty doc_string of the model
    with pytest.raises(BuildError, match="expected the model that this run has read, found another"):
        work(tmp_path, pytest.fail)
