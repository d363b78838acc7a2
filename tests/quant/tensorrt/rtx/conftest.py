import pytest

from quant.settings.batch_range import BatchRange
from quant.tensorrt.bindings import TensorRTError, load_tensorrt_for_rtx
from quant.tensorrt.building.builder import engine_from_onnx
from quant.tensorrt.building.options import BuilderOptions


@pytest.fixture(scope="session")
def rtx():
    """TensorRT for RTX, which needs no GPU to build; every test here skips where it is not installed."""
    try:
        return load_tensorrt_for_rtx()
    except TensorRTError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def built(rtx):
    """Parses and builds a model for batches of 2, by the code that builds for every TensorRT."""

    def build(proto, capability="8.9"):
        size = BatchRange(2, 2, 2)
        return engine_from_onnx(proto, "int8", size, BuilderOptions(), tensorrt=rtx, capability=capability)

    return build
