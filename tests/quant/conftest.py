import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from quant.onnx_graph.model import load_model
from quant.onnx_graph.tensor_types import activation_names
from tests.once import made_once
from tests.quant import graphs

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Batch:
    """A batch as data streams give it."""

    inputs: dict
    names: list
    labels: np.ndarray | None = None


@pytest.fixture(scope="session")
def batch_of():
    """A batch of arrays by input name; images are called 0.png, 1.png and so on."""

    def make(first=0, labels=None, **inputs):
        size = len(next(iter(inputs.values())))
        names = [f"{i}.png" for i in range(first, first + size)]
        return Batch({name: np.asarray(array) for name, array in inputs.items()}, names, labels)

    return make


@pytest.fixture(scope="session")
def graph_of():
    """A model out of nodes, shapes of inputs and outputs by name, and constants by name, see `graphs.graph_of`."""
    return graphs.graph_of


@pytest.fixture(scope="session")
def run_onnx():
    """Outputs of a model on a plain session without optimisations; some tensors more with `also`."""

    def run(proto, also=(), **inputs):
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in also)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results = session.run(None, inputs)
        if also:
            return dict(zip([output.name for output in session.get_outputs()], results, strict=True))
        return results

    return run


@pytest.fixture
def saved(tmp_path):
    """A model written to disk and loaded."""

    def save(proto, name="model.onnx"):
        onnx.save(proto, tmp_path / name)
        return load_model(tmp_path / name)

    return save


@pytest.fixture(scope="session")
def random():
    """Float32 numbers of the normal distribution; the same ones for the same seed."""
    return lambda *shape, seed=0: np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="session")
def norm_constants(random):
    """Constants of a BatchNormalization called `name` with that many channels."""

    def make(name, channels):
        return {
            f"{name}_scale": 1 + 0.3 * random(channels, seed=1),
            f"{name}_shift": random(channels, seed=2),
            f"{name}_mean": random(channels, seed=3),
            f"{name}_var": 0.5 + random(channels, seed=4) ** 2,
        }

    return make


@pytest.fixture(scope="session")
def residual_net(graph_of, random, norm_constants):
    """conv-bn-relu, then conv-bn plus skip, relu, transposed conv, pooling, Gemm, MatMul: one of each that matters."""
    constants = {
        "w1": random(4, 3, 3, 3, seed=11),
        "w2": random(4, 4, 3, 3, seed=12) / 3,
        "b2": random(4, seed=13),
        "w3": random(4, 2, 2, 2, seed=14),
        "w4": random(5, 2, seed=15),
        "b4": random(5, seed=16),
        "w5": random(5, 3, seed=17),
        **norm_constants("n1", 4),
        **norm_constants("n2", 4),
    }

    def norm(data, name, output):
        return helper.make_node(
            "BatchNormalization", [data, *(f"{name}_{part}" for part in ("scale", "shift", "mean", "var"))], [output]
        )

    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["c1"], pads=[1, 1, 1, 1], name="conv1"),
        norm("c1", "n1", "bn1"),
        helper.make_node("Relu", ["bn1"], ["relu1"]),
        helper.make_node("Conv", ["relu1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], name="conv2"),
        norm("c2", "n2", "bn2"),
        helper.make_node("Add", ["bn2", "relu1"], ["sum"], name="residual"),
        helper.make_node("Relu", ["sum"], ["relu2"]),
        helper.make_node("ConvTranspose", ["relu2", "w3"], ["up"], strides=[2, 2], name="up"),
        helper.make_node("GlobalAveragePool", ["up"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w4", "b4"], ["hidden"], transB=1, name="gemm"),
        helper.make_node("MatMul", ["hidden", "w5"], ["logits"], name="matmul"),
    ]
    return graph_of(nodes, {"input": ["N", 3, 8, 8]}, {"logits": ["N", 3]}, constants)


@pytest.fixture
def moving_shortcut(graph_of, random):
    """A block whose shortcut only moves data: every second pixel, then channels of zeros, as small ResNets have it."""
    constants = {
        "w1": random(4, 3, 3, 3, seed=1),
        "w2": random(8, 4, 3, 3, seed=2),
        "from": np.array([0, 0], np.int64),
        "to": np.array([99, 99], np.int64),
        "axes": np.array([2, 3], np.int64),
        "steps": np.array([2, 2], np.int64),
        "pads": np.array([0, 2, 0, 0, 0, 2, 0, 0], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1] * 4, name="conv1"),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4, strides=[2, 2], name="conv2"),
        helper.make_node("Slice", ["r1", "from", "to", "axes", "steps"], ["s"], name="slice"),
        helper.make_node("Pad", ["s", "pads"], ["p"], name="pad"),
        helper.make_node("Add", ["c2", "p"], ["y"], name="add"),
    ]
    return graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 8, 4, 4]}, constants)


@pytest.fixture(scope="session")
def transformer(graph_of, random):
    """A transformer block with a classifier: 16 tokens of 64 features in 4 heads, with an exporter's shape arithmetic.

    Activations are of the magnitude 1: the weights keep the variance.
    """
    tokens, width, heads, classes = 16, 64, 4, 10

    def weights(rows, columns, seed):
        return random(rows, columns, seed=seed) / np.float32(rows**0.5)

    constants = {
        "qkv": weights(width, 3 * width, 1), "qkv_bias": 0.1 * random(3 * width, seed=2),
        "out": weights(width, width, 3), "fc1": weights(width, 4 * width, 4), "fc2": weights(4 * width, width, 5),
        "head": weights(width, classes, 6), "head_bias": 0.1 * random(classes, seed=7),
        "gain": np.ones(width, np.float32), "shift": np.zeros(width, np.float32),
        "zero": np.array(0), "one": np.array(1), "last": np.array(3), "axis0": np.array([0]),
        "three_heads": np.array([3 * heads, width // heads]), "joined": np.array([tokens, width]),
        "splits": np.array([heads, heads, heads]),
        "half": np.float32(-0.5), "root2": np.float32(2**0.5), "unit": np.float32(1), "middle": np.float32(0.5),
    }  # fmt: skip
    n = helper.make_node
    nodes = [
        n("LayerNormalization", ["x", "gain", "shift"], ["n1"], axis=-1),
        n("MatMul", ["n1", "qkv"], ["p"], name="qkv"),
        n("Add", ["qkv_bias", "p"], ["pb"]),
        # [N, T, 3 W] to [N, T, 3 H, D], with N and T read from the tensor
        n("Shape", ["n1"], ["shape"]),
        n("Gather", ["shape", "zero"], ["batch"]),
        n("Gather", ["shape", "one"], ["count"]),
        n("Unsqueeze", ["batch", "axis0"], ["batch1"]),
        n("Unsqueeze", ["count", "axis0"], ["count1"]),
        n("Concat", ["batch1", "count1", "three_heads"], ["split_shape"], axis=0),
        n("Reshape", ["pb", "split_shape"], ["r"]),
        n("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3]),
        n("Split", ["t", "splits"], ["q", "k", "v"], axis=1),
        n("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        n("MatMul", ["q", "kt"], ["products"], name="scores"),
        n("Shape", ["q"], ["q_shape"]),
        n("Gather", ["q_shape", "last"], ["q_size"]),
        n("Cast", ["q_size"], ["q_width"], to=onnx.TensorProto.FLOAT),
        n("Pow", ["q_width", "half"], ["factor"]),
        n("Mul", ["products", "factor"], ["scaled"]),
        n("Softmax", ["scaled"], ["s"], axis=-1),
        n("MatMul", ["s", "v"], ["mixed"], name="mix"),
        n("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        n("Concat", ["batch1", "joined"], ["joined_shape"], axis=0),
        n("Reshape", ["back", "joined_shape"], ["a"]),
        n("MatMul", ["a", "out"], ["o"], name="out"),
        n("Add", ["x", "o"], ["x1"], name="residual"),
        n("LayerNormalization", ["x1", "gain", "shift"], ["n2"], axis=-1),
        n("MatMul", ["n2", "fc1"], ["f"], name="fc1"),
        n("Div", ["f", "root2"], ["fd"]),
        n("Erf", ["fd"], ["fe"]),
        n("Add", ["fe", "unit"], ["f1"]),
        n("Mul", ["f", "f1"], ["fm"]),
        n("Mul", ["fm", "middle"], ["gelu"]),
        n("MatMul", ["gelu", "fc2"], ["m"], name="fc2"),
        n("Add", ["x1", "m"], ["x2"], name="residual2"),
        n("ReduceMean", ["x2"], ["pooled"], axes=[1], keepdims=0),
        n("Gemm", ["pooled", "head", "head_bias"], ["y"], name="head"),
    ]
    return graph_of(nodes, {"x": ["N", tokens, width]}, {"y": ["N", classes]}, constants)


@pytest.fixture(scope="session")
def ones():
    """amax 1 for every activation of a model."""
    return lambda proto: dict.fromkeys(activation_names(proto), 1.0)


@pytest.fixture(scope="session")
def shared():
    """The folder with models, data and TensorRT's own caches."""
    folder = Path(os.environ.get("CALIB_SHARED", ROOT.parent / "shared"))
    if not (folder / "reference").is_dir():
        pytest.skip(f"needs models, data and TensorRT's reference caches, which are not in {folder} (CALIB_SHARED)")
    return folder


@pytest.fixture(scope="session")
def calibration_images(shared, tmp_path_factory):
    """The folder of the CIFAR-10 calibration images."""

    def extract(folder):
        with tarfile.open(shared / "data" / "cifar10-calib.tar.gz") as archive:
            archive.extractall(folder, filter="data")

    return made_once(tmp_path_factory, "cifar10", extract) / "cifar10-calib"


@pytest.fixture(scope="session")
def elementwise(graph_of):
    """Nodes whose results are exact however they are split: abs = |x|, y = 2 |x| + 1."""

    def make(batch="N"):
        nodes = [
            helper.make_node("Abs", ["x"], ["abs"]),
            helper.make_node("Mul", ["abs", "two"], ["double"]),
            helper.make_node("Add", ["double", "one"], ["y"]),
        ]
        return graph_of(nodes, {"x": [batch, 2, 3]}, {"y": [batch, 2, 3]}, {"two": [2.0], "one": [1.0]})

    return make


@pytest.fixture
def logarithm(saved, graph_of):
    """log = log(x), y = 3 log: not finite where x is not positive."""
    nodes = [helper.make_node("Log", ["x"], ["log"]), helper.make_node("Mul", ["log", "three"], ["y"])]
    return saved(graph_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, {"three": [3.0]}))
