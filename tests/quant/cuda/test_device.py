import os

import numpy as np
import pytest

from quant.cuda import device
from tests.host_cuda import HostCuda


@pytest.fixture
def cuda(monkeypatch):
    runtime = HostCuda()
    monkeypatch.setattr(device, "_runtime", lambda: runtime)
    return runtime


def test_failure_names_the_function_and_cudas_own_error(cuda):
    cuda.fail["cudaDeviceSynchronize"] = 700
    with pytest.raises(
        device.DeviceError, match=r"^cudaDeviceSynchronize: cudaErrorIllegalAddress \(text of"
    ) as caught:
        device.synchronize()
    assert caught.value.name == "cudaErrorIllegalAddress"


def test_full_memory_is_an_error_of_its_own_that_says_what_to_do(cuda):
    cuda.limit = 100
    with pytest.raises(device.OutOfDeviceMemoryError, match="smaller --batch-size"):
        device.DeviceBuffer(101)


def test_no_gpu_says_so(cuda):
    cuda.do_cudaDriverGetVersion = lambda: (0, 12040)
    cuda.fail["cudaGetDeviceCount"] = 100
    with pytest.raises(device.DeviceError, match=r"no NVIDIA GPU is visible.*, or use ONNX Runtime$") as caught:
        device.find_device()
    assert caught.value.reason.endswith("check nvidia-smi and CUDA_VISIBLE_DEVICES")  # for what runs on a GPU alone


def test_missing_driver_is_not_reported_as_a_missing_gpu(cuda):
    cuda.do_cudaDriverGetVersion = lambda: (0, 0)  # what the runtime gives where no driver is loaded
    with pytest.raises(device.DeviceError, match=r"driver is loaded; install it, or use ONNX Runtime$") as caught:
        device.find_device()
    assert caught.value.reason.endswith("no NVIDIA driver is loaded; install it")


def test_a_block_frees_everything_also_after_an_error(cuda):
    with (
        pytest.raises(ZeroDivisionError),
        device.Stream(),
        device.Event(),
        device.DeviceBuffer(16),
        device.PinnedBuffer((2, 2), "float32"),
    ):
        assert len(cuda.live) == 4
        raise ZeroDivisionError
    assert not cuda.live


def test_memory_is_freed_once_and_not_usable_afterwards(cuda):
    buffer = device.DeviceBuffer(16)
    buffer.close()
    buffer.close()
    assert cuda.made["cudaFree"] == 1
    with pytest.raises(device.DeviceError, match="used after it was freed"):
        _ = buffer.pointer


def test_data_survives_the_way_to_the_device_and_back(cuda):
    values = np.arange(6, dtype=np.float16).reshape(2, 3)
    with (
        device.Stream() as stream,
        device.PinnedBuffer((2, 3), "float16") as there,
        device.PinnedBuffer((2, 3), "float16") as back,
        device.DeviceBuffer(12) as buffer,
    ):
        there.array[:] = values
        stream.copy_to_device(buffer, there)
        stream.copy_to_host(back, buffer)
        np.testing.assert_array_equal(back.array, values)


def test_part_of_a_buffer_can_be_copied(cuda):
    with (
        device.Stream() as stream,
        device.PinnedBuffer((4,), "uint8") as there,
        device.DeviceBuffer(4) as buffer,
        device.PinnedBuffer((4,), "uint8") as back,
    ):
        there.array[:], back.array[:] = 7, 0
        stream.copy_to_device(buffer, there)
        stream.copy_to_host(back, buffer, 3)
        np.testing.assert_array_equal(back.array, [7, 7, 7, 0])


def test_a_copy_past_the_end_of_memory_is_refused_both_ways(cuda):
    with (
        device.Stream() as stream,
        device.PinnedBuffer((8,), "uint8") as host,
        device.DeviceBuffer(4) as buffer,
    ):
        for copy in (lambda: stream.copy_to_device(buffer, host), lambda: stream.copy_to_host(host, buffer)):
            with pytest.raises(device.DeviceError, match="cudaMemcpyAsync: cudaErrorIllegalAddress"):
                copy()


def test_a_copy_from_or_to_freed_memory_is_refused(cuda):
    with device.Stream() as stream, device.PinnedBuffer((4,), "uint8") as host, device.DeviceBuffer(4) as buffer:
        there, back = (buffer.pointer, host.pointer, 4, 1, stream.handle), (host.pointer, buffer.pointer, 4, 2, None)
        assert (cuda.cudaMemcpyAsync(*there), cuda.cudaMemcpyAsync(*back)) == ((0,), (0,))
        buffer.close()
        assert (cuda.cudaMemcpyAsync(*there), cuda.cudaMemcpyAsync(*back)) == ((700,), (700,))


@pytest.mark.parametrize(("before", "after"), [(None, "LAZY"), ("EAGER", "EAGER")])
def test_kernels_are_loaded_when_used_unless_the_user_says_otherwise(monkeypatch, before, after):
    monkeypatch.setenv("CUDA_MODULE_LOADING", before or "")
    if before is None:
        monkeypatch.delenv("CUDA_MODULE_LOADING")
    device.load_kernels_when_used()
    assert os.environ["CUDA_MODULE_LOADING"] == after
