"""Counting on the GPU gives the CPU's histograms bit for bit: the kernels themselves, compiled for the processor."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from calib.errors import NonFiniteError
from calib.histograms.counting import Counts
from quant.cuda import device
from quant.cuda.counting_kernels import STATE, TENSOR, Shape, shape_for
from quant.cuda.device import DeviceBuffer, DeviceError, PinnedBuffer, Stream
from quant.cuda.device_counts import DeviceCounts
from tests.host_cuda import HostCuda
from tests.host_kernels import COMPILER, HostKernels, library

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler to compile the kernels with")


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    runtime = HostCuda()
    monkeypatch.setattr(device, "_runtime", lambda: runtime)
    return runtime


class Both:
    """Counts batches with the CPU's counter and with the GPU's kernels."""

    def __init__(self, limits, compiled=None, **required):
        self.kernels = compiled or HostKernels()
        self.stream = Stream()
        self.there = DeviceCounts(limits, self.kernels, self.stream, **required)
        self.here = Counts(limits, first_batch=False, **required)

    def count(self, **arrays):
        """Count a batch with both; the names of the tensors that both find not finite."""
        buffers, places = [], {}
        for name, array in arrays.items():
            given = np.ascontiguousarray(array, np.float32)
            pinned, buffer = PinnedBuffer(given.shape, np.float32), DeviceBuffer(given.nbytes)
            pinned.array[...] = given
            self.stream.copy_to_device(buffer, pinned, given.nbytes)
            buffers += [pinned, buffer]
            places[name] = (buffer.pointer, given.size)
        found = self.there.count(places)
        for buffer in buffers:
            buffer.close()
        with ThreadPoolExecutor(1) as helpers:
            try:
                self.here.count(arrays, (), helpers, 1)
            except NonFiniteError as error:
                assert error.tensor == found[0]
                return found
        assert found == ()
        return found

    @property
    def found(self):
        """What the kernels counted; equal to `expected` where it is so bit for bit."""
        return held(self.there.counted())

    @property
    def expected(self):
        """What the CPU's counter counted."""
        return held(self.here.counted())


def held(counted):
    """What is held of each tensor: digests of its clipped values and of all, as far as they are kept."""
    rectified, dropped = set(counted.rectified), set(counted.dropped)
    kept = {name: histogram for name, histogram in counted.histograms.items() if name not in dropped}
    clipped = {name: histogram.clipped().digest() for name, histogram in kept.items()}
    whole = {name: histogram.whole().digest() for name, histogram in kept.items() if name not in rectified}
    return clipped, whole, rectified, dropped


def awkward(random, size):
    """Values of all magnitudes: subnormal, huge, exact powers of two, zeros of both signs."""
    values = (random(size) * np.float32(2.0) ** np.random.default_rng(size).integers(-149, 120, size)).astype(
        np.float32
    )
    values[::7] = 0.0
    values[1::11] = -0.0
    values[2::13] = np.float32(2.0) ** np.arange(len(values[2::13])).clip(0, 100)
    return values


@pytest.mark.parametrize("size", [0, 1, 3, 63, 64, 65, 257, 5000])
@pytest.mark.parametrize("limit", [math.inf, 6.0, 1e-3])
def test_batches_of_any_size_and_magnitude_give_the_same_counts(random, size, limit):
    both = Both({"x": limit, "y": math.inf, "z": limit})
    for scale in (1e-3, 1.0, 37.5, 1e-20):
        both.count(x=awkward(random, size), y=random(max(size, 1)) * scale, z=-np.abs(random(size)) * scale)
        assert both.found == both.expected


def test_the_widths_grow_with_later_batches_and_earlier_counts_are_folded(random):
    both = Both({"x": 6.0})
    for power in (-140, -60, -3, -2, 0, 1, 60, 127):
        both.count(x=random(3000).clip(-0.9, 0.9) * np.float32(2.0) ** power)
        assert both.found == both.expected


def test_a_batch_whose_values_have_their_bins_is_read_once(random):
    both = Both({"x": math.inf, "y": 1.0})
    values = random(1000)
    both.count(x=values, y=values)
    assert both.kernels.rounds == 2  # widths were not known
    both.count(x=values, y=values)
    assert both.kernels.rounds == 3
    both.count(x=values * 1000, y=values)
    assert both.kernels.rounds == 5
    assert both.found == both.expected


def test_zeros_alone_and_one_sign_alone(random):
    both = Both({"zeros": math.inf, "negative": 2.0, "positive": 2.0})
    for _ in range(2):
        both.count(zeros=np.zeros(100), negative=-np.abs(random(100)), positive=np.abs(random(100)) + 1)
        assert both.found == both.expected
    both.count(zeros=np.full(3, -1e-30), negative=np.zeros(4), positive=np.zeros(4))
    assert both.found == both.expected


def test_tensors_that_a_batch_leaves_out_stay_as_they_are(random):
    both = Both({"x": math.inf, "y": 3.0, "z": math.inf})
    both.count(x=random(100), z=random(500))
    both.count(y=random(700))
    assert both.found == both.expected
    assert both.there.histogram("y").whole().count == 700


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_errors_where_a_scale_is_needed(random, value):
    both = Both({"before": math.inf, "x": 2.0, "after": math.inf})
    spoiled = random(500)
    spoiled[333] = value
    assert both.count(before=random(500), x=spoiled, after=random(100)) == ("x",)


def test_nan_and_infinity_end_the_counting_of_other_tensors(random):
    both = Both({"x": math.inf, "y": 2.0}, required={"y"})
    for spoiled in (random(100), np.full(100, np.nan), random(100)):
        both.count(x=spoiled, y=random(50))
        assert both.found == both.expected
    assert both.there.counted().dropped == {"x"}


@pytest.mark.parametrize("limit", [4.0, math.inf])
def test_infinity_that_a_clip_removes_leaves_the_clipped_counts(random, limit):
    both = Both({"x": limit}, required=set(), required_clipped={"x"})
    both.count(x=random(100))
    spoiled = random(300) * 100
    spoiled[150] = -np.inf if math.isinf(limit) else np.inf
    both.count(x=spoiled)
    assert both.found == both.expected
    assert both.there.counted().rectified == {"x"}
    both.count(x=random(200) * 3)
    assert both.found == both.expected
    assert both.count(x=np.full(8, np.nan)) == ("x",)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_gpu_with_little_shared_memory_counts_the_same(random, rows):
    both = Both({"x": 1.0, "y": math.inf}, HostKernels(3, Shape(threads=1, blocks=1, shared_rows=rows)))
    for _ in range(2):
        both.count(x=random(999) * 3, y=random(101))
        assert both.found == both.expected


@pytest.mark.parametrize(("blocks", "threads"), [(1, 1), (7, 1), (64, 1), (3, 4)])
def test_any_number_of_blocks_and_threads_shares_the_values(random, blocks, threads):
    both = Both({f"t{i}": math.inf for i in range(9)}, HostKernels(blocks, Shape(threads, blocks=1)))
    both.count(**{f"t{i}": random(1 + 97 * i) for i in range(9)})
    assert both.found == both.expected


def test_shared_memory_decides_how_the_work_is_divided():
    assert shape_for(227 << 10, 228 << 10) == Shape(512, 2, 3)  # H100
    assert shape_for(99 << 10, 100 << 10) == Shape(512, 1, 3)  # RTX 4090
    assert shape_for(64 << 10, 64 << 10) == Shape(512, 1, 2)  # T4


def test_the_tables_are_those_of_the_kernels():
    compiled = library(HostKernels().shape)
    assert (TENSOR.itemsize, STATE.itemsize) == (compiled.sizes(0), compiled.sizes(1))


def test_an_address_that_cannot_be_read_four_at_a_time_is_refused(random):
    both = Both({"x": math.inf})
    with pytest.raises(DeviceError, match="tensor 'x': expected up to"):
        both.there.count({"x": (4, 10)})


def test_everything_is_freed(cuda, random):
    with Stream() as stream, DeviceCounts({"x": math.inf}, HostKernels(), stream):
        assert len(cuda.live) > 1
    assert not cuda.live
