"""Tensors to probe TensorRT's entropy calibrator with; for `probe_entropy.py`."""

import numpy as np

BATCHES, BATCH, VALUES = 8, 64, 64
COUNT = BATCHES * BATCH * VALUES
FIRST = BATCH * VALUES  # values of the first batch


def shapes():
    """Tensors with narrow and wide gates, few values, constants, and odd first batches."""
    rng = np.random.default_rng(7)
    tensors = {}
    for low in (0.02, 0.05, 0.061, 0.0626, 0.064, 0.08, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.99):
        tensors[f"uniform_{low}_1"] = rng.uniform(low, 1, COUNT)
        tensors[f"gate_{low}"] = low + (1 - low) / (1 + np.exp(-rng.normal(0, 1, COUNT)))
        few = rng.uniform(low, 1, 48)
        tensors[f"few48_{low}"] = rng.choice(few, COUNT)
    for spread in (0.25, 0.5, 1, 2, 4):
        tensors[f"sigmoid_{spread}"] = 1 / (1 + np.exp(-rng.normal(0, spread, COUNT)))
        x = rng.normal(0, spread, COUNT)
        tensors[f"silu_{spread}"] = x / (1 + np.exp(-x))
    tensors["constant_0.7"] = np.full(COUNT, 0.7)
    tensors["two_values"] = rng.choice([0.3, 0.7], COUNT)
    tensors["three_values"] = rng.choice([0.3, 0.31, 0.7], COUNT)
    tensors["two_values_rare"] = np.where(rng.random(COUNT) < 1e-3, 0.3, 0.7)
    tensors["minus_one_one"] = rng.choice([-1.0, 1.0], COUNT)
    zeros_first = rng.normal(0, 1, COUNT)
    zeros_first[:FIRST] = 0
    tensors["first_batch_zero"] = zeros_first
    tensors["all_zero"] = np.zeros(COUNT)
    tensors["tiny"] = rng.normal(0, 1e-30, COUNT)
    grows = rng.normal(0, 1, COUNT)
    grows[FIRST:] *= 7
    tensors["grows_thrice"] = grows
    sparse, where = np.zeros(COUNT), rng.integers(0, COUNT, 200)
    sparse[where] = rng.exponential(1, 200)
    sparse[0] = 0.5
    tensors["sparse_200"] = sparse
    tensors["laplace"] = rng.laplace(0, 1, COUNT)
    tensors["student"] = rng.standard_t(3, COUNT)
    return tensors


def shares():
    """Tensors with a share of the values in one bin and the rest spread; activations multiplied by gates."""
    rng = np.random.default_rng(11)
    tensors = {}
    for share in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99):
        single = rng.random(COUNT) < share
        tensors[f"low_{share}"] = np.where(single, 0.3, rng.uniform(0.5, 1, COUNT))
        tensors[f"top_{share}"] = np.where(single, 1.0, rng.uniform(0.5, 1, COUNT))
    for spread in (0.25, 0.5, 1, 2, 4):
        x, y = rng.normal(0, spread, COUNT), rng.normal(0, spread, COUNT)
        sigmoid = 1 / (1 + np.exp(-x))
        tensors[f"silu_{spread}"] = x * sigmoid
        tensors[f"hardswish_{spread}"] = x * np.clip(x + 3, 0, 6) / 6
        tensors[f"gated_{spread}"] = y * sigmoid
        tensors[f"gated_relu_{spread}"] = np.maximum(y, 0) * sigmoid
        tensors[f"gated_hard_{spread}"] = y * np.clip(x + 3, 0, 6) / 6
    return tensors


PROBES = {"probes-shapes.cache": shapes, "probes-shares.cache": shares}


def batches_of(tensors):
    """float32 [BATCHES, BATCH, VALUES] for each tensor."""
    return {name: values.astype(np.float32).reshape(BATCHES, BATCH, VALUES) for name, values in tensors.items()}


def model_of(names):
    """A model whose outputs are slices of its input."""
    from onnx import TensorProto, helper

    constants = [helper.make_tensor("axis", TensorProto.INT64, [1], [1])]
    nodes, outputs = [], []
    for i, name in enumerate(names):
        constants += [
            helper.make_tensor(f"from{i}", TensorProto.INT64, [1], [i]),
            helper.make_tensor(f"to{i}", TensorProto.INT64, [1], [i + 1]),
        ]
        nodes.append(helper.make_node("Slice", ["input", f"from{i}", f"to{i}", "axis"], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, 1, 1, VALUES]))
    value = helper.make_tensor_value_info("input", TensorProto.FLOAT, [BATCH, len(names), 1, VALUES])
    graph = helper.make_graph(nodes, "probes", [value], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
