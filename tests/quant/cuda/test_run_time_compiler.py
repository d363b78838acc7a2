"""NVRTC compiles the kernels for GPUs that it knows, without one; and what is missing is said."""

import importlib
import types

import pytest

from quant.cuda import run_time_compiler
from quant.cuda.counting_kernels import SOURCE, Shape
from quant.cuda.device import Device, DeviceError
from quant.cuda.run_time_compiler import Kernel, compiled


def device(capability):
    return Device("a GPU", capability, 1 << 30, "13.0", "13.0")


@pytest.fixture
def nvrtc():
    """The real one, where cuda-python and its library are installed."""
    module = pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-python is not installed")
    try:
        module.nvrtcVersion()
    except (RuntimeError, OSError) as error:
        pytest.skip(f"NVRTC is not installed: {error}")
    return module


def test_known_gpus_get_machine_code_and_newer_ones_what_the_driver_compiles(nvrtc):
    assert compiled(SOURCE, Shape().defines(), device("9.0"))[:4] == b"\x7fELF"
    assert b".target sm_" in compiled(SOURCE, Shape().defines(), device("99.0"))


def test_gpus_that_are_too_old_and_errors_in_the_source_are_named(nvrtc, tmp_path):
    with pytest.raises(DeviceError, match=r"knows no GPU of compute capability 1\.0.*, or use --collector cpu$"):
        compiled(SOURCE, Shape().defines(), device("1.0"))
    (tmp_path / "bad.cu").write_text("__device__ int x = ;")
    with pytest.raises(DeviceError, match=r"NVRTC cannot compile bad\.cu: bad\.cu\(1\): error: expected an expression"):
        compiled(tmp_path / "bad.cu", {}, device("9.0"))


def test_a_missing_cuda_python_is_named(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(DeviceError, match="cuda-python is not installed; pip install"):
        compiled(SOURCE, {}, device("9.0"))


def test_a_missing_library_says_which_package_has_it(monkeypatch):
    def unloaded():
        raise RuntimeError("Failed to dlopen libnvrtc.so.12")

    library = types.SimpleNamespace(nvrtcGetSupportedArchs=unloaded)
    monkeypatch.setattr(run_time_compiler, "_bindings", lambda new, old: library)
    with pytest.raises(DeviceError, match=r"libnvrtc\.so\.12; install the nvidia-cuda-nvrtc package"):
        compiled(SOURCE, {}, device("9.0"))


def test_a_launch_that_cuda_refuses_is_an_error_with_its_name():
    class Code(int):
        name = "CUDA_ERROR_INVALID_VALUE"

    driver = types.SimpleNamespace(cuLaunchKernel=lambda *arguments: (Code(1),))
    stream = types.SimpleNamespace(handle=7)
    with pytest.raises(DeviceError, match="count: CUDA_ERROR_INVALID_VALUE, or use --collector cpu") as caught:
        Kernel(driver, object(), "count").launch(stream, 1, 32, [(1, int)])
    assert caught.value.name == "CUDA_ERROR_INVALID_VALUE"
