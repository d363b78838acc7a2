"""Small graphs, one for each form of product, shortcut and neighbour that people quantize."""

import numpy as np
from onnx import TensorProto, helper

from tests.quant.graphs import graph_of

n = helper.make_node


def normal(*shape, seed=0):
    """Weights that keep the magnitude of what they are multiplied with."""
    inner = int(np.prod(shape[1:])) or 1
    return (np.random.default_rng(seed).normal(size=shape) / inner**0.5).astype(np.float32)


def images(nodes, constants, *, channels=8, size=16, result=None, opset=17, **more):
    """A graph from images `x` to `y`."""
    inputs = {"x": ["N", channels, size, size], **more.pop("inputs", {})}
    return graph_of(nodes, inputs, {"y": result}, constants, opset=opset, **more)


def convolution(data="x", weights="w", result="c", **attributes):
    """A 3x3 convolution that keeps the size."""
    return n("Conv", [data, weights], [result], name=f"conv_{result}", **{"pads": [1] * 4, **attributes})


def after(*nodes, opset=17, **constants):
    """A convolution, then nodes that lead from `c` to `d`, then another convolution."""
    body = [convolution(), *nodes, convolution("d", "w2", "y")]
    return images(body, {"w": normal(8, 8, 3, 3), "w2": normal(8, 8, 3, 3, seed=2), **constants}, opset=opset)


def between(kind, *, opset=17, **attributes):
    """One node with one input between two convolutions."""
    return after(n(kind, ["c"], ["d"], **attributes), opset=opset)


def convolutions():
    """Forms of Conv."""
    w, bias = normal(8, 8, 3, 3), np.linspace(-1, 1, 8, dtype=np.float32)
    line = graph_of(
        [n("Conv", ["x", "w"], ["y"], pads=[1, 1])], {"x": ["N", 8, 32]}, {"y": None}, {"w": normal(8, 8, 3)}
    )
    volume = graph_of(
        [n("Conv", ["x", "w"], ["y"], pads=[1] * 6)],
        {"x": ["N", 4, 8, 8, 8]},
        {"y": None},
        {"w": normal(4, 4, 3, 3, 3)},
    )
    tiny = w.copy()
    tiny[:2] *= 1e-9
    norm = {f"b{i}": values for i, values in enumerate((1 + bias / 4, bias, bias / 2, 1 + bias**2))}
    folded = [convolution(), n("BatchNormalization", ["c", "b0", "b1", "b2", "b3"], ["d"]), n("Relu", ["d"], ["y"])]
    apart = [n("BatchNormalization", ["x", "b0", "b1", "b2", "b3"], ["d"]), convolution("d", result="y")]
    return {
        "conv": images([convolution(result="y")], {"w": w}),
        "conv bias relu": images(
            [n("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4), n("Relu", ["c"], ["y"])], {"w": w, "b": bias}
        ),
        "conv 1d": line,
        "conv 3d": volume,
        "conv strided dilated": images(
            [convolution(result="y", strides=[2, 2], dilations=[2, 2], pads=[2] * 4)], {"w": w}
        ),
        "conv depthwise": images([convolution(result="y", group=8)], {"w": normal(8, 1, 3, 3)}),
        "conv in groups": images([convolution(result="y", group=2)], {"w": normal(8, 4, 3, 3)}),
        "conv of dead filters": images([n("Conv", ["x", "w", "b"], ["y"], pads=[1] * 4)], {"w": tiny, "b": bias}),
        "conv batch normalization": images(folded, {"w": w, **norm}),
        "batch normalization conv": images(apart, {"w": w, **norm}),
        "conv shared weights": images([convolution(), convolution("c", "w", "y")], {"w": w}),
        "conv opset 13": images([convolution(result="y")], {"w": w}, opset=13),
        "conv opset 21": images([convolution(result="y")], {"w": w}, opset=21),
        "conv opset 11": images([convolution(result="y")], {"w": w}, opset=11),
    }


def transposed_convolutions():
    """Forms of ConvTranspose."""

    def up(*shape, **attributes):
        node = n("ConvTranspose", ["d", "u"], ["y"], name="up", strides=[2, 2], **attributes)
        return images(
            [convolution(), n("Relu", ["c"], ["d"]), node], {"w": normal(8, 8, 3, 3), "u": normal(*shape, seed=3)}
        )

    return {
        "transposed": up(8, 4, 2, 2),
        "transposed padded": up(8, 4, 4, 4, pads=[1] * 4),
        "transposed depthwise": up(8, 1, 2, 2, group=8),
        "transposed in groups": up(8, 2, 2, 2, group=2),
    }


def products():
    """Forms of Gemm and MatMul."""

    def rows(nodes, constants, **inputs):
        return graph_of(nodes, {"x": ["N", 32], **inputs}, {"y": None}, constants)

    def tokens(nodes, constants, **inputs):
        return graph_of(nodes, {"x": ["N", 16, 32], **inputs}, {"y": None}, constants)

    w, bias = normal(32, 48), np.linspace(-1, 1, 48, dtype=np.float32)
    heads = [
        n("MatMul", ["x", "wq"], ["q"]),
        n("MatMul", ["x", "wk"], ["k"]),
        n("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        n("MatMul", ["q", "kt"], ["s"], name="scores"),
        n("Mul", ["s", "factor"], ["scaled"]),
        n("Add", ["scaled", "mask"], ["masked"]),
        n("Softmax", ["masked"], ["p"], axis=-1),
        n("MatMul", ["p", "x"], ["y"], name="mix"),
    ]
    mask = np.triu(np.full((16, 16), np.finfo(np.float32).min, np.float32), 1)
    return {
        "gemm": rows([n("Gemm", ["x", "w", "b"], ["y"])], {"w": w, "b": bias}),
        "gemm transposed": rows([n("Gemm", ["x", "w", "b"], ["y"], transB=1)], {"w": w.T.copy(), "b": bias}),
        "gemm scaled": rows([n("Gemm", ["x", "w", "b"], ["y"], alpha=0.5, beta=2.0)], {"w": w, "b": bias}),
        "gemm without bias": rows([n("Gemm", ["x", "w"], ["y"])], {"w": w}),
        "matmul": tokens([n("MatMul", ["x", "w"], ["p"]), n("Add", ["p", "b"], ["y"])], {"w": w, "b": bias}),
        "matmul weights first": tokens([n("MatMul", ["w", "x"], ["y"])], {"w": normal(8, 16)}),
        "matmul batch of weights": graph_of(
            [n("MatMul", ["x", "w"], ["y"])], {"x": ["N", 4, 16, 32]}, {"y": None}, {"w": normal(4, 32, 24)}
        ),
        "matmul of activations": tokens([n("MatMul", ["x", "z"], ["y"])], {}, z=["N", 32, 16]),
        "masked attention": tokens(
            heads,
            {"wq": normal(32, 32), "wk": normal(32, 32, seed=1), "factor": np.float32(32**-0.5), "mask": mask},
        ),
        "mlp": rows(
            [n("Gemm", ["x", "w", "b"], ["h"]), n("Relu", ["h"], ["r"]), n("Gemm", ["r", "w2"], ["y"])],
            {"w": w, "b": bias, "w2": normal(48, 10)},
        ),
    }


def shortcuts():
    """Sums, concatenations and other places where branches meet."""
    two = {"w": normal(8, 8, 3, 3), "w2": normal(8, 8, 3, 3, seed=2)}
    squeeze = [
        convolution(),
        n("GlobalAveragePool", ["c"], ["p"]),
        n("Conv", ["p", "w3"], ["q"], name="squeeze"),
        n("Relu", ["q"], ["r"]),
        n("Conv", ["r", "w4"], ["e"], name="excite"),
        n("HardSigmoid", ["e"], ["g"], alpha=1 / 6, beta=0.5),
        n("Mul", ["c", "g"], ["d"]),
        convolution("d", "w2", "y"),
    ]
    joined = [
        convolution(),
        n("MaxPool", ["c"], ["m"], kernel_shape=[3, 3], pads=[1] * 4),
        n("Concat", ["c", "m"], ["d"], axis=1),
        n("Conv", ["d", "w3"], ["y"], name="joined"),
    ]
    residual = [convolution(), n("Relu", ["c"], ["r"]), convolution("r", "w2", "e"), n("Add", ["e", "x"], ["s"])]
    split = [
        convolution(),
        n("Split", ["c", "halves"], ["a", "b"], axis=1),
        n("Conv", ["a", "w3"], ["e"], name="half"),
        n("Concat", ["e", "b"], ["d"], axis=1),
        convolution("d", "w2", "y"),
    ]
    return {
        "residual": images([*residual, n("Relu", ["s"], ["y"])], two),
        "squeeze and excite": images(squeeze, {**two, "w3": normal(4, 8, 1, 1), "w4": normal(8, 4, 1, 1)}),
        "concatenated": images(joined, {"w": two["w"], "w3": normal(8, 16, 1, 1)}),
        "split": images(split, {**two, "halves": np.array([4, 4]), "w3": normal(4, 4, 1, 1)}),
        "product of branches": images([convolution(), convolution("x", "w2", "d"), n("Mul", ["c", "d"], ["y"])], two),
        "two inputs": images(
            [convolution(), convolution("z", "w2", "d"), n("Add", ["c", "d"], ["y"])],
            two,
            inputs={"z": ["N", 8, 16, 16]},
        ),
    }


def neighbours():
    """What stands between products."""
    silu = [n("Sigmoid", ["c"], ["g"]), n("Mul", ["c", "g"], ["d"])]
    halves = {"starts": np.array([0, 0]), "ends": np.array([8, 8]), "axes": np.array([2, 3])}
    vectors = [
        convolution(),
        n("Flatten", ["c"], ["f"]),
        n("Gemm", ["f", "v"], ["h"], name="fc"),
        n("Softmax", ["h"], ["y"], axis=1),
    ]
    classes = [*vectors[:3], n("ArgMax", ["h"], ["y"], axis=1)]
    constants = {"w": normal(8, 8, 3, 3), "v": normal(2048, 10)}
    bright = [
        n("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        n("Mul", ["f", "byte"], ["d"]),
        convolution("d", result="y"),
    ]
    shape = [
        n("Shape", ["c"], ["s"]),
        n("Gather", ["s", "zero"], ["b"], axis=0),
        n("Concat", ["b", "rest"], ["to"], axis=0),
        n("Reshape", ["c", "to"], ["r"]),
        n("MatMul", ["r", "m"], ["y"], name="product"),
    ]
    return {
        "silu": after(*silu),
        "hard swish": between("HardSwish"),
        "clip": after(n("Clip", ["c", "low", "high"], ["d"]), low=np.float32(0), high=np.float32(6)),
        "leaky relu": between("LeakyRelu", alpha=0.1),
        "prelu": after(n("PRelu", ["c", "slope"], ["d"]), slope=np.full((8, 1, 1), 0.1, np.float32)),
        "elu": between("Elu"),
        "gelu": between("Gelu", opset=20),
        "max pool": between("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        "average pool": between("AveragePool", kernel_shape=[3, 3], pads=[1] * 4),
        "resize nearest": after(
            n("Resize", ["c", "", "scales"], ["d"], mode="nearest"), scales=np.array([1, 1, 2, 2], np.float32)
        ),
        "resize linear": after(
            n("Resize", ["c", "", "scales"], ["d"], mode="linear"), scales=np.array([1, 1, 2, 2], np.float32)
        ),
        "pad": after(n("Pad", ["c", "pads"], ["d"]), pads=np.array([0, 0, 1, 1, 0, 0, 1, 1])),
        "slice": after(n("Slice", ["c", *halves], ["d"]), **halves),
        "shuffle of channels": after(
            n("Reshape", ["c", "apart"], ["r"]),
            n("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3, 4]),
            n("Reshape", ["t", "back"], ["d"]),
            apart=np.array([0, 2, 4, 16, 16]),
            back=np.array([0, 8, 16, 16]),
        ),
        "depth to space": images(
            [convolution(), n("DepthToSpace", ["c"], ["d"], blocksize=2), n("Conv", ["d", "k"], ["y"])],
            {"w": normal(8, 8, 3, 3), "k": normal(4, 2, 1, 1)},
        ),
        "instance normalization": after(
            n("InstanceNormalization", ["c", "gain", "shift"], ["d"]),
            gain=np.ones(8, np.float32),
            shift=np.zeros(8, np.float32),
        ),
        "softmax at the end": images(vectors, constants),
        "argmax at the end": images(classes, constants, kinds={"y": TensorProto.INT64}),
        "bytes in": images(
            bright, {"w": normal(8, 8, 3, 3), "byte": np.float32(1 / 255)}, kinds={"x": TensorProto.UINT8}
        ),
        "shape arithmetic": images(
            [convolution(), *shape],
            {"w": normal(8, 8, 3, 3), "zero": np.array([0]), "rest": np.array([-1, 16]), "m": normal(16, 16)},
        ),
    }


GRAPHS = {**convolutions(), **transposed_convolutions(), **products(), **shortcuts(), **neighbours()}
