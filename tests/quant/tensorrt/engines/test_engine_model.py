"""What an engine says that cannot be run on this machine."""

import pytest

from quant.cuda.device import DeviceError
from quant.errors import QuantError
from quant.tensorrt.engines.engine_file import EngineIdentity, sidecar_path, sidecar_text
from quant.tensorrt.engines.engine_model import load_engine


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A file with the description of an engine of a release; there is no GPU."""

    def absent():
        raise DeviceError("CUDA cannot be loaded: cuda-python is not installed; pip install 'calib-int8[tensorrt]'", "")

    monkeypatch.setattr("quant.cuda.device.find_device", absent)

    def make(release):
        path, data = tmp_path / "model.int8.sm89.engine", b"an engine"
        path.write_bytes(data)
        identity = EngineIdentity(release, "", "8.9", "model", "int8", "", "8", "{}")
        sidecar_path(path).write_text(sidecar_text(identity, data, {}, measured=False))
        return path

    return make


def test_an_engine_of_tensorrt_for_rtx_asks_for_its_gpu_and_not_for_tensorrt(engine):
    path = engine("for RTX 1.7.1.116")
    with pytest.raises(QuantError) as caught:
        load_engine(path)
    said = str(caught.value)
    expected = "expected a GPU of compute capability 8.9 to run this engine of TensorRT for RTX 1.7.1.116, found none: "
    assert said.startswith(f"{path}: {expected}")
    assert said.endswith("; compare the Q/DQ model that it was built from")
    assert "[tensorrt]" not in said
    assert "\n" not in said


def test_an_engine_of_tensorrt_says_what_to_install(engine):
    with pytest.raises(QuantError, match=r"an engine runs only on TensorRT and a GPU: (TensorRT|CUDA)"):
        load_engine(engine("8.6.0"))
