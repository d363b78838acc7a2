"""Measure the gain from the rule that plain entropy hardly clips inputs of matrix products (docs/entropy.md).

    python scripts/compare_products.py vit.onnx CALIBRATION EVALUATION

Calibrates once on the first --num-images of CALIBRATION in name order, compares INT8 with and without that rule with
FP32 on all images of EVALUATION, and prints a table.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calib import Entropy, EntropyCalibrator
from calib.algorithms import amax_from_statistics
from datasets import BatchStream, ImageFolder, Preprocessing
from quant import collect_statistics, compare, load_model
from quant.qdq.writer import qdq_model_from_amax


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--num-images", type=int, default=512)
    parser.add_argument("--preprocess", default="imagenet")
    options = parser.parse_args()
    model = load_model(options.model)
    fit = Preprocessing.from_spec(options.preprocess).bound_to(model.inputs[0].shape, model.inputs[0].dtype)
    images = BatchStream(ImageFolder(options.calibration), np.arange(options.num_images), preprocessing=fit)
    calibrator = EntropyCalibrator(images)
    collect_statistics(model, calibrator)
    statistics, entropy = calibrator.statistics, Entropy()
    rules = {
        "entropy": amax_from_statistics(statistics, entropy),
        "entropy without that rule": {n: entropy.amax(h) for n, h in statistics.histograms.items()},
    }
    moved = sum(abs(rules["entropy"][n] / a - 1) > 1e-6 for n, a in rules["entropy without that rule"].items() if a)
    print(f"{moved} of {len(statistics.histograms)} tensors differ\n")
    print("| scales | top-1, % | drop, points | SQNR of the outputs, dB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for label, amax in rules.items():
            path = Path(folder) / "int8.onnx"
            onnx.save(qdq_model_from_amax(model.proto, amax), path)
            int8 = compare(model, path, options.evaluation, preprocess=options.preprocess)["builds"][1]
            print(f"| {label} | {int8['top1']:.2f} | {int8['drop_top1']:.2f} | {int8['sqnr_db']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
