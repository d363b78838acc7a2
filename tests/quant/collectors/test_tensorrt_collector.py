"""The GPU's collector without a GPU: CUDA in host memory, its kernels compiled for the processor, ONNX Runtime in
place of TensorRT's engines. What it counts is compared with the CPU's collector; tests/quant/gpu has the real engines.
"""

import ctypes
import math

import numpy as np
import pytest
from onnx import helper

from calib import EntropyCalibrator, MinMaxCalibrator, NonFiniteError
from quant import collect_statistics
from quant.collectors.tensorrt_collector import TensorRTCollector
from quant.cuda import device
from quant.cuda.batch_feed import FeedInput
from quant.cuda.device import OutOfDeviceMemoryError
from quant.errors import BuildError
from quant.onnx_graph.model import load_model
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.tensorrt.activation_engine import DeviceArray, with_outputs
from tests.host_cuda import HostCuda
from tests.host_kernels import COMPILER, HostKernels

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler to compile the kernels with")
n = helper.make_node


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    runtime = HostCuda()
    monkeypatch.setattr(device, "_runtime", lambda: runtime)
    return runtime


class OrtRunner:
    """Gives activations as an engine does: for one batch size, in memory that it is told."""

    def __init__(self, proto, tensors, batch):
        self.session = OnnxRuntimeSession(with_outputs(proto, tensors))
        self.tensors, self.batch = list(tensors), batch
        self.inputs = tuple(
            FeedInput(value.name, (batch, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:])), "float32")
            for value in proto.graph.input
        )
        zeros = {i.name: np.zeros(i.shape, np.float32) for i in self.inputs}
        self.shapes = [array.shape for array in self.session.run_whole(zeros, self.tensors)]
        self.bytes = sum(self._room(shape) for shape in self.shapes)
        self.closed = False

    @staticmethod
    def _room(shape):
        return -(-math.prod(shape) * 4 // 256) * 256

    def place(self, pointer):
        self.places = {}
        for name, shape in zip(self.tensors, self.shapes, strict=True):
            self.places[name] = DeviceArray(pointer, shape)
            pointer += self._room(shape)
        return self.places

    def run(self, inputs, stream):
        given = {}
        for wanted in self.inputs:
            text = ctypes.string_at(inputs[wanted.name], math.prod(wanted.shape) * 4)
            given[wanted.name] = np.frombuffer(text, np.float32).reshape(wanted.shape)
        for name, array in zip(self.tensors, self.session.run_whole(given, self.tensors), strict=True):
            assert array.shape == self.places[name].shape
            ctypes.memmove(self.places[name].pointer, np.ascontiguousarray(array).ctypes.data, array.nbytes)

    def close(self):
        self.closed = True


class Gpu:
    """Makes collectors whose engines it keeps."""

    def __init__(self):
        self.opened, self.notes = [], []

    def open(self, proto, tensors, batch):
        self.opened.append(OrtRunner(proto, tensors, batch))
        return self.opened[-1]

    def collect(self, model, *batches, calibrator=MinMaxCalibrator, open_runner=None, **options):
        made, advanced = calibrator(batches), []
        collector = TensorRTCollector(
            note=self.notes.append, kernels=HostKernels, open_runner=open_runner or self.open, **options
        )
        try:
            collector.collect(model, made, advanced.append)
        finally:
            assert all(runner.closed for runner in self.opened)
        self.advanced = advanced
        return made.statistics


@pytest.fixture
def gpu(cuda):
    made = Gpu()
    yield made
    assert not cuda.live


def assert_same(statistics, model, *batches, of=MinMaxCalibrator):
    """The statistics are those of the CPU's collector, bit for bit."""
    calibrator = of(batches)
    collect_statistics(model, calibrator)
    expected = calibrator.statistics
    assert (statistics.images, statistics.left_out) == (expected.images, expected.left_out)
    assert statistics.products == expected.products
    assert {name: h.digest() for name, h in statistics.histograms.items()} == {
        name: h.digest() for name, h in expected.histograms.items()
    }


@pytest.fixture
def branches(graph_of, random):
    """Elementwise nodes, derived tensors and a clip, which give the same floats for any batch size."""
    nodes = [
        n("Abs", ["x"], ["abs"]),
        n("Sub", ["abs", "one"], ["moved"]),
        n("Clip", ["moved", "zero", "six"], ["clipped"]),
        n("Relu", ["moved"], ["relu"]),
        n("Concat", ["clipped", "relu"], ["both"], axis=1),
        n("Mul", ["both", "weights"], ["y"]),
    ]
    constants = {"one": np.float32(1), "zero": np.float32(0), "six": np.float32(6), "weights": random(1, 6, 1)}
    return graph_of(nodes, {"x": ["N", 3, 5]}, {"y": ["N", 6, 5]}, constants)


def test_the_statistics_are_those_of_the_cpu(gpu, saved, branches, batch_of, random):
    model, x = saved(branches), random(20, 3, 5) * 9
    batches = [batch_of(x=x[:8]), batch_of(x=x[8:16], first=8), batch_of(x=x[16:], first=16)]
    assert_same(gpu.collect(model, *batches), model, *batches)
    assert len(gpu.opened) == 1  # the last batch was filled up, and the copies were not counted
    assert gpu.opened[0].tensors == ["abs", "moved", "y"]  # all others follow from these and from the input
    assert gpu.advanced == [8, 8, 4]


def test_a_convolutional_net_gives_the_same_amax(gpu, saved, residual_net, batch_of, random):
    model, x = saved(residual_net), random(10, 3, 8, 8)
    found = gpu.collect(model, batch_of(input=x), calibrator=EntropyCalibrator)
    calibrator = EntropyCalibrator([batch_of(input=x)])
    collect_statistics(model, calibrator)
    assert found.histograms.keys() == calibrator.statistics.histograms.keys()
    for name, histogram in calibrator.statistics.histograms.items():
        assert found.histograms[name].abs_max == pytest.approx(histogram.abs_max, rel=1e-5)
        assert found.histograms[name].count == histogram.count


def test_axes_that_the_model_leaves_open_have_the_size_of_the_first_batch(gpu, saved, graph_of, batch_of, random):
    nodes = [n("Conv", ["x", "w"], ["c"], pads=[1] * 4), n("Relu", ["c"], ["r"]), n("GlobalAveragePool", ["r"], ["y"])]
    proto = graph_of(nodes, {"x": ["N", 3, "h", "w"]}, {"y": ["N", 4, 1, 1]}, {"w": random(4, 3, 3, 3)})
    batches = [batch_of(x=random(4, 3, 6, 10, seed=seed)) for seed in range(2)]
    model = saved(proto)
    assert_same(gpu.collect(model, *batches), model, *batches)
    assert gpu.opened[0].inputs[0].shape == (4, 3, 6, 10)


@pytest.mark.parametrize("images", [3, 1])
def test_a_limit_of_memory_leaves_fewer_images_at_a_time(gpu, saved, branches, batch_of, random, images):
    model, x = saved(branches), random(9, 3, 5)
    held = images * (15 + 15 + 30) * 4 * 4  # a quarter is left for activations, as counts take more than all of it
    assert_same(gpu.collect(model, batch_of(x=x), memory_limit=held), model, batch_of(x=x))
    assert [runner.batch for runner in gpu.opened] == [images]


def test_tensors_are_fetched_in_groups_if_one_image_does_not_fit(gpu, saved, branches, batch_of, random):
    model, x = saved(branches), random(5, 3, 5)
    assert_same(gpu.collect(model, batch_of(x=x), memory_limit=1), model, batch_of(x=x))
    assert [runner.tensors for runner in gpu.opened] == [["abs"], ["moved"], ["y"]]


@pytest.fixture
def sequence(graph_of, random):
    """Images on the second axis, as in a transformer that takes sequences first; and a tensor that holds none."""
    nodes = [
        n("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        n("Abs", ["t"], ["turned"]),
        n("Transpose", ["turned"], ["back"], perm=[1, 0, 2]),
        n("Neg", ["table"], ["positions"]),
        n("Add", ["back", "positions"], ["y"]),
    ]
    return graph_of(nodes, {"x": ["N", 4, 6]}, {"y": ["N", 4, 6]}, {"table": random(1, 4, 6)})


def test_a_last_batch_that_cannot_be_filled_up_gets_an_engine_of_its_size(gpu, saved, sequence, batch_of, random):
    model, x = saved(sequence), random(7, 4, 6)
    batches = [batch_of(x=x[:5]), batch_of(x=x[5:], first=5)]
    found = gpu.collect(model, *batches)
    assert_same(found, model, *batches)
    assert [runner.batch for runner in gpu.opened] == [5, 2]


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_filled_up(gpu, saved, graph_of, batch_of, random, batch):
    nodes = [n("Abs", ["x"], ["a"]), n("Sub", ["a", "one"], ["y"])]
    model = saved(graph_of(nodes, {"x": [batch, 6]}, {"y": [batch, 6]}, {"one": np.float32(1)}))
    x = random(6, 6)
    assert_same(gpu.collect(model, batch_of(x=x)), model, batch_of(x=x))
    assert [runner.batch for runner in gpu.opened] == [batch]


def test_nan_names_the_tensor_and_the_image(gpu, saved, graph_of, batch_of):
    nodes = [n("Log", ["x"], ["log"]), n("MatMul", ["log", "w"], ["y"])]
    model = saved(graph_of(nodes, {"x": ["N", 4]}, {"y": ["N", 2]}, {"w": np.ones((4, 2), np.float32)}))
    x = np.ones((6, 4), np.float32)
    x[4, 2] = -1
    with pytest.raises(NonFiniteError, match=r"tensor 'log', image '10\.png': expected finite activations, found nan"):
        gpu.collect(model, batch_of(x=np.ones((6, 4), np.float32)), batch_of(x=x, first=6))


def test_nan_where_no_scale_is_needed_is_left_out(gpu, saved, graph_of, batch_of, random):
    nodes = [
        n("Log", ["x"], ["log"]),
        n("IsNaN", ["log"], ["wrong"]),
        n("Where", ["wrong", "x", "log"], ["mended"]),
        n("MatMul", ["mended", "w"], ["y"]),
    ]
    model = saved(graph_of(nodes, {"x": ["N", 4]}, {"y": ["N", 2]}, {"w": random(4, 2)}))
    batches = [batch_of(x=np.abs(random(6, 4)) + 1), batch_of(x=random(6, 4) - 9, first=6)]
    found = gpu.collect(model, *batches)
    assert_same(found, model, *batches)
    assert found.left_out == ("log",)


def test_an_engine_that_computes_something_else_is_refused(gpu, saved, branches, batch_of, random):
    class Wrong(OrtRunner):
        def run(self, inputs, stream):
            super().run(inputs, stream)
            ctypes.memset(self.places["y"].pointer, 0, 4 * 30)

    def open_runner(proto, tensors, batch):
        gpu.opened.append(Wrong(proto, tensors, batch))
        return gpu.opened[-1]

    with pytest.raises(BuildError, match="tensor 'y': TensorRT computes other values than ONNX Runtime"):
        gpu.collect(saved(branches), batch_of(x=random(4, 3, 5)), open_runner=open_runner)


def test_full_memory_halves_the_batch(gpu, saved, branches, batch_of, random):
    def open_runner(proto, tensors, batch):
        if batch > 3:
            raise OutOfDeviceMemoryError("full")
        return gpu.open(proto, tensors, batch)

    model, x = saved(branches), random(8, 3, 5)
    found = gpu.collect(model, batch_of(x=x), open_runner=open_runner)
    assert_same(found, model, batch_of(x=x))
    assert gpu.opened[0].batch == 2
    assert "trying 4" in gpu.notes[0]


def test_an_error_of_the_stream_is_raised_and_everything_freed(gpu, saved, branches, batch_of, random):
    def stream():
        yield batch_of(x=random(4, 3, 5))
        raise OSError("the disk is gone")

    calibrator = MinMaxCalibrator(stream())
    with pytest.raises(OSError, match="the disk is gone"):
        TensorRTCollector(kernels=HostKernels, open_runner=gpu.open).collect(saved(branches), calibrator)
    assert calibrator.statistics.images == 0


def test_no_images_give_no_statistics(gpu, saved, branches):
    assert gpu.collect(saved(branches)).images == 0
    assert gpu.opened == []


def test_what_the_gpu_does_not_count_says_what_to_do(gpu, saved, branches, graph_of, batch_of, random):
    batch = batch_of(x=random(4, 3, 5))

    def match(batches):
        return EntropyCalibrator(batches, match_tensorrt=True)

    with pytest.raises(BuildError, match=r"match_tensorrt: .*use --collector cpu"):
        gpu.collect(saved(branches), batch, calibrator=match)
    moves = graph_of([n("Relu", ["x"], ["y"])], {"x": ["N", 3, 5]}, {"y": ["N", 3, 5]})
    with pytest.raises(BuildError, match="follow from the inputs; use --collector cpu"):
        gpu.collect(saved(moves), batch)


def test_scales_of_parts_of_the_images_are_taken(gpu, saved, branches, batch_of, random):
    from calib.caches.convergence import ScalesOverImages

    model, x = saved(branches), random(32, 3, 5)
    batches = [batch_of(x=x[i : i + 8], first=i) for i in range(0, 32, 8)]
    calibrator = MinMaxCalibrator(batches)
    calibrator.over_images = ScalesOverImages(calibrator.algorithm, 32, 8)
    TensorRTCollector(kernels=HostKernels, open_runner=gpu.open).collect(model, calibrator)
    parts = calibrator.over_images.parts(calibrator.statistics, calibrator.compute_amax())
    assert [part.images for part in parts] == [8, 16, 24]


def test_the_outputs_of_a_copy_are_the_tensors_asked_for(saved, branches):
    proto = load_model(saved(branches).path).proto
    made = with_outputs(proto, ["moved", "y"])
    assert [value.name for value in made.graph.output] == ["moved", "y"]
    assert [value.name for value in proto.graph.output] == ["y"]
