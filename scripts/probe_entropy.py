"""Probe TensorRT's entropy calibrator with tensors that are rare in networks, and compare `--match-tensorrt` with it.

    python scripts/probe_entropy.py                      # the answers of TensorRT 8.6.0 on an H200, in tests/calib/data
    python scripts/probe_entropy.py --build tests/calib/data   # asks again: needs TensorRT 8.6 or 10 and a GPU

Every tensor is a slice of the input, so that differences come from rules and not from arithmetic: 8 batches of 64
"images" with 64 values for each tensor.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from entropy_probes import BATCH, PROBES, batches_of, model_of

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from calib import Entropy, EntropyCalibrator, read_cache  # noqa: E402 - the checkout need not be installed
from calib.caches.cache import text_from_cache  # noqa: E402
from calib.entropy import SEARCH_BINS  # noqa: E402
from calib.histograms.first_batch import FirstBatchHistogram, largest_magnitude  # noqa: E402
from datasets.batches import Batch  # noqa: E402


def histogram_of(batches):
    """The histogram that TensorRT's calibrator gathers."""
    histogram = FirstBatchHistogram()
    for batch in batches:
        histogram.start_batch()
        histogram.add(batch, largest_magnitude(batch))
    return histogram


def stream_of(tensors):
    """The batches of `batches_of` in a calibrator's form: one input [batch, tensor, 1, value]."""
    images = np.stack(list(tensors.values()), 2)[:, :, :, None]  # [batch, image, tensor, 1, value]
    indices = np.arange(images.shape[0] * images.shape[1]).reshape(images.shape[:2])
    return [
        Batch({"input": batch}, rows, tuple(map(str, rows)), None) for batch, rows in zip(images, indices, strict=True)
    ]


def build(folder):
    """Let TensorRT calibrate, and write its caches."""
    from quant.tensorrt.building.native_calibration import native_cache_from_onnx
    from quant.tensorrt.building.options import BuilderOptions

    for file, made in PROBES.items():
        tensors = batches_of(made())
        calibrator = EntropyCalibrator(stream_of(tensors))
        cache, _ = native_cache_from_onnx(model_of(list(tensors)), calibrator, BATCH, BuilderOptions())
        (folder / file).write_text(text_from_cache(cache), encoding="utf-8", newline="\n")


def compare(folder, only):
    """Print for each rule, or only for `only`, for how many tensors it gives TensorRT's amax."""
    from entropy_rules import RULE, VARIANTS, search

    tensors, theirs = {}, {}
    for file, made in PROBES.items():
        answers = read_cache(folder / file).amax
        for name, batches in batches_of(made()).items():
            tensors[f"{file}: {name}"], theirs[f"{file}: {name}"] = histogram_of(batches), answers[name]
    print("| rule | tensors with TensorRT's amax |\n|---|---|")
    ours = {name: Entropy().amax(histogram) for name, histogram in tensors.items()}
    print(f"| calib --match-tensorrt | {agreeing(ours, theirs)} of {len(theirs)} |")
    for label, change in VARIANTS.items():
        if only is not None and only != label:
            continue
        found = {name: amax_by(search, RULE | change, histogram) for name, histogram in tensors.items()}
        print(f"| {label} | {agreeing(found, theirs)} of {len(theirs)} |")


def amax_by(search, rule, histogram):
    """Amax from a search with changed details; the whole range if no candidate is left, 1 if all values are zero."""
    best = search(histogram.counts, **rule)
    return ((best if best > 0 else SEARCH_BINS) + 0.5) * histogram.limit / SEARCH_BINS or 1.0


def agreeing(ours, theirs):
    """How many values of amax agree within 0.01 %."""
    return sum(abs(ours[name] - amax) <= 1e-4 * amax for name, amax in theirs.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, metavar="FOLDER", help="let TensorRT calibrate, write its caches there")
    parser.add_argument("--rule", help="print only this rule, by its name in the table")
    options = parser.parse_args()
    if options.build is not None:
        build(options.build)
    compare(options.build or ROOT / "tests" / "calib" / "data", options.rule)
