"""Ask TensorRT's entropy calibrator about tensors that networks rarely show, and hold `--match-tensorrt` against it.

    python scripts/probe_entropy.py                      # the answers of TensorRT 8.6.0 on an H200, in tests/calib/data
    python scripts/probe_entropy.py --build tests/calib/data   # asks again: needs TensorRT 8.6 or 10 and a GPU

Every tensor is a slice of the input, so that a difference is one of rules and not of arithmetic: 8 batches of 64
"images" with 64 values for each tensor.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from calib import Entropy, EntropyCalibrator, read_cache  # noqa: E402 - the checkout need not be installed
from calib.cache import cache_from_amax, text_from_cache  # noqa: E402
from calib.entropy import SEARCH_BINS  # noqa: E402
from calib.first_batch import FirstBatchHistogram  # noqa: E402
from datasets.batches import Batch  # noqa: E402

BATCHES, BATCH, VALUES = 8, 64, 64
COUNT = BATCHES * BATCH * VALUES
FIRST = BATCH * VALUES  # values of the first batch


def shapes():
    """Narrow and wide gates, few values, constants, odd first batches."""
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
    """A share of the values in one bin and the rest spread; activations multiplied by gates."""
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


def histogram_of(batches):
    """What TensorRT's calibrator gathers."""
    histogram = FirstBatchHistogram()
    for batch in batches:
        largest = float(np.abs(batch).max())
        if largest:
            histogram.start_batch()
            histogram.add(batch, largest)
    return histogram


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


def build(folder):
    """Let TensorRT calibrate; writes its caches."""
    from quant.tensorrt_builder import native_cache_from_onnx
    from quant.tensorrt_options import BuilderOptions

    for file, made in PROBES.items():
        tensors = batches_of(made())
        images = np.stack(list(tensors.values()), 2)[:, :, :, None]  # [batch, image, tensor, 1, value]
        names = [str(i) for i in range(BATCH)]
        stream = [Batch({"input": batch}, names, None) for batch in images]
        cache, _ = native_cache_from_onnx(model_of(list(tensors)), EntropyCalibrator(stream), BATCH, BuilderOptions())
        (folder / file).write_text(text_from_cache(cache), encoding="utf-8", newline="\n")


def compare(folder, only):
    """Prints, rule by rule, on how many tensors it gives TensorRT's amax; of `only` this rule, or of all."""
    from entropy_rules import RULE, VARIANTS, search

    tensors, theirs = {}, {}
    for file, made in PROBES.items():
        answers = read_cache(folder / file).amax
        for name, batches in batches_of(made()).items():
            tensors[f"{file}: {name}"], theirs[f"{file}: {name}"] = histogram_of(batches), answers[name]
    print("| rule | tensors with TensorRT's amax |\n|---|---|")
    ours = cache_from_amax({name: histogram.amax() for name, histogram in tensors.items()}, Entropy()).amax
    print(f"| calib --match-tensorrt | {agreeing(ours, theirs)} of {len(theirs)} |")
    for label, change in VARIANTS.items():
        if only is not None and only != label:
            continue
        found = {name: amax_by(search, RULE | change, histogram) for name, histogram in tensors.items()}
        print(f"| {label} | {agreeing(found, theirs)} of {len(theirs)} |")


def amax_by(search, rule, histogram):
    """Amax by a search with details changed; the whole range where no candidate is left, 1 where all is zero."""
    best = search(histogram.counts, **rule)
    return ((best if best > 0 else SEARCH_BINS) + 0.5) * histogram.limit / SEARCH_BINS or 1.0


def agreeing(ours, theirs):
    """How many agree to 0.01 %."""
    return sum(abs(ours[name] - amax) <= 1e-4 * amax for name, amax in theirs.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, metavar="FOLDER", help="let TensorRT calibrate, write its caches there")
    parser.add_argument("--rule", help="only this one, by its name in the table")
    options = parser.parse_args()
    if options.build is not None:
        build(options.build)
    compare(options.build or ROOT / "tests" / "calib" / "data", options.rule)
