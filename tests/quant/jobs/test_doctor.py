import sys

import pytest

from quant.cuda import device
from quant.errors import QuantError
from quant.jobs import doctor
from quant.tensorrt.bindings import load_tensorrt_for_rtx
from tests.host_cuda import HostCuda


def found(what):
    return next(finding for finding in doctor.examine() if finding.what == what)


def test_without_a_gpu_the_cpu_path_is_open_and_the_other_says_what_it_needs(monkeypatch):
    runtime = HostCuda()
    runtime.do_cudaDriverGetVersion = lambda: (0, 0)
    monkeypatch.setattr(device, "_runtime", lambda: runtime)
    assert found("onnxruntime").works
    assert found("--backend onnxruntime").text == "open"
    assert not found("GPU").works
    assert "no NVIDIA driver" in found("GPU").text
    assert "needs GPU" in found("--backend tensorrt").text
    assert not found("--calibrator tensorrt").works


def test_missing_cuda_python_is_one_line_that_names_what_to_install(monkeypatch):
    def missing():
        raise device.DeviceError("CUDA cannot be loaded: cuda-python is not installed; pip install cuda-python")

    monkeypatch.setattr(device, "_runtime", missing)
    assert "pip install" in found("GPU").text


def test_tensorrt_for_rtx_says_what_it_builds_for_or_how_it_is_installed(monkeypatch):
    try:
        release = load_tensorrt_for_rtx()
    except QuantError:
        pass
    else:
        assert found("TensorRT for RTX").works
        assert f"{release.version}, builds for compute capability 7.5, 8.0" in found("TensorRT for RTX").text
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    load_tensorrt_for_rtx.cache_clear()
    missing = found("TensorRT for RTX")
    load_tensorrt_for_rtx.cache_clear()
    assert not missing.works
    assert "pip install 'calib-int8[rtx]'" in missing.text


def test_it_says_what_decodes_jpeg_files(monkeypatch):
    assert found("simplejpeg").works
    assert "decodes the JPEG files of common kinds; Pillow " in found("simplejpeg").text
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    missing = found("simplejpeg")
    assert not missing.works
    assert missing.text.startswith("only needed for speed; Pillow ")
    assert missing.text.endswith("; pip install simplejpeg")


@pytest.mark.parametrize(("works", "mark"), [(True, "ok"), (False, "--")])
def test_each_finding_is_a_line(works, mark):
    text = doctor.text_from_findings([doctor.Finding("GPU", works, "text")])
    assert text == f"{mark}  GPU  text\n"


def test_error_of_the_back_end_is_a_library_error():
    assert issubclass(device.DeviceError, QuantError)
