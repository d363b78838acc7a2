"""The collector on the GPU: the kernels' counts against the CPU's, and a pass over images by TensorRT."""

import math

import numpy as np
import pytest
from onnx import helper

from calib.algorithms import algorithm_from_name, amax_from_statistics
from calib.calibrator import MinMaxCalibrator
from calib.errors import NonFiniteError
from calib.histograms.split_histogram import SplitHistogram
from quant import collect_statistics
from quant.collectors.tensorrt_collector import TensorRTCollector
from quant.cuda.counting_kernels import CountingKernels, Shape
from quant.cuda.device import DeviceBuffer, PinnedBuffer, Stream, memory_info, use_device
from quant.cuda.device_counts import DeviceCounts
from quant.tensorrt.building.options import BuilderOptions

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def kernels():
    use_device()
    return CountingKernels()


@pytest.fixture
def counted():
    """Histograms that the GPU's kernels make of some batches of one tensor."""

    def count(kernels, limit, *batches):
        with Stream() as stream, DeviceCounts({"x": limit}, kernels, stream) as counts:
            for values in batches:
                with PinnedBuffer(values.shape, np.float32) as host, DeviceBuffer(values.nbytes) as there:
                    host.array[:] = values
                    stream.copy_to_device(there, host)
                    assert counts.count({"x": (there.pointer, values.size)}) == ()
            return counts.histogram("x")

    return count


def cpu(limit, *batches):
    histogram = SplitHistogram(limit)
    for values in batches:
        histogram.add(values)
    return histogram


def values_of(random, size, scale):
    values = random.standard_normal(size, np.float32) * np.float32(scale)
    values[::5] = 0.0
    values[1::9] = -0.0
    values[2::31] *= np.float32(2.0**-130)  # subnormal
    return values


@pytest.mark.parametrize("limit", [math.inf, 1.0])
@pytest.mark.parametrize("size", [1, 1023, 8192, 3_000_001])
def test_the_counts_are_those_of_the_cpu_bit_for_bit(kernels, counted, limit, size):
    random = np.random.default_rng(size)
    batches = [values_of(random, size, scale) for scale in (0.01, 1.0, 1e-30, 900.0, 3e38)]
    batches[-1] = batches[-1].clip(-3e38, 3e38)
    found, expected = counted(kernels, limit, *batches), cpu(limit, *batches)
    assert found.whole().digest() == expected.whole().digest()
    assert found.clipped().digest() == expected.clipped().digest()


@pytest.mark.parametrize("shape", [Shape(256, 1, 1), Shape(1024, 1, 2), Shape(512, 1, 3)])
def test_any_division_of_the_work_counts_the_same(counted, shape):
    values = values_of(np.random.default_rng(1), 1_000_000, 3.0)
    assert counted(CountingKernels(shape), 2.0, values).whole().digest() == cpu(2.0, values).whole().digest()


def test_each_algorithm_gives_the_amax_of_the_cpu(digits, digit_stream, fast):
    calibrator = MinMaxCalibrator(digit_stream(250, 32))  # the last batch is filled up
    seen = []
    TensorRTCollector(options=fast).collect(digits, calibrator, seen.append)
    assert calibrator.statistics.images == sum(seen) == 250
    reference = MinMaxCalibrator(digit_stream(250, 32))
    collect_statistics(digits, reference)
    assert calibrator.statistics.histograms.keys() == reference.statistics.histograms.keys()
    for name, histogram in reference.statistics.histograms.items():
        assert calibrator.statistics.histograms[name].count == histogram.count, name
    for name in ("minmax", "percentile", "entropy"):
        algorithm = algorithm_from_name(name)
        mine, theirs = (amax_from_statistics(each.statistics, algorithm) for each in (calibrator, reference))
        off = [tensor for tensor, value in theirs.items() if abs(mine[tensor] - value) > 0.01 * value]
        assert len(off) <= (name == "entropy"), (name, off)  # its choice among a hundred limits may hang on one value


@pytest.mark.parametrize("limit", [1 << 16, 40 << 20])
def test_little_memory_gives_the_same_counts(digits, digit_stream, fast, limit):
    found = []
    for memory in (limit, 1 << 30):
        calibrator = MinMaxCalibrator(digit_stream(64, 32))
        TensorRTCollector(memory, fast).collect(digits, calibrator)
        found.append({name: h.count for name, h in calibrator.statistics.histograms.items()})
    assert found[0] == found[1]


def test_nan_names_the_tensor_and_the_image(saved, graph_of, batch_of, fast):
    nodes = [
        helper.make_node("Sqrt", ["x"], ["root"]),
        helper.make_node("Conv", ["root", "w"], ["y"], kernel_shape=[1, 1]),
    ]
    shapes = {"x": ["N", 3, 4, 4]}, {"y": ["N", 2, 4, 4]}, {"w": np.ones((2, 3, 1, 1), np.float32)}
    good = np.ones((8, 3, 4, 4), np.float32)
    bad = good.copy()
    bad[5, 1] = -1
    calibrator = MinMaxCalibrator([batch_of(x=good), batch_of(x=bad, first=8)])
    with pytest.raises(NonFiniteError, match=r"tensor 'root', image '13\.png'"):
        TensorRTCollector(options=fast).collect(saved(graph_of(nodes, *shapes)), calibrator)


@pytest.fixture(scope="session")
def collected(warm, digits, digit_stream, fast):
    """A pass that is over: the compiler and the kernels, which stay loaded, are in memory."""
    TensorRTCollector(options=fast).collect(digits, MinMaxCalibrator(digit_stream(32, 32)))


def test_the_gpus_memory_does_not_grow_and_is_given_back(collected, memory_returns, digits, digit_stream):
    free = []

    def stream():
        for _ in range(20):
            for batch in digit_stream(256, 32):
                free.append(memory_info()[0])
                yield batch

    calibrator = MinMaxCalibrator(stream())
    TensorRTCollector(options=BuilderOptions(level=0)).collect(digits, calibrator)
    assert calibrator.statistics.images == 20 * 256
    assert max(free[10:]) - min(free[10:]) <= 2 << 20
