"""Show how close entropy calibration comes to caches that TensorRT wrote, rule by rule: prints a table, draws a plot.

    python scripts/compare_entropy.py IMAGES model.onnx=theirs.cache [model2.onnx=theirs2.cache ...] --plot entropy.svg

The caches must come from the same images: the first --num-images in name order, in batches of --batch-size.
"""

import argparse
from pathlib import Path

import numpy as np
from entropy_rules import RULE, VARIANTS, search

from calib import Entropy, EntropyCalibrator, read_cache
from calib.entropy import SEARCH_BINS
from datasets import BatchStream, ImageFolder, Preprocessing, sample_indices
from quant import collect_statistics, load_model


def errors(options, model_path, cache_path):
    model = load_model(model_path)
    fit = Preprocessing.from_spec(options.preprocess).bound_to(model.inputs[0].shape, model.inputs[0].dtype)
    images = ImageFolder(options.images)
    chosen = sample_indices(images, options.num_images, sampling="first")
    calibrator = EntropyCalibrator(
        BatchStream(images, chosen, preprocessing=fit, batch_size=options.batch_size), match_tensorrt=True
    )
    collect_statistics(model, calibrator)
    theirs = read_cache(Path(cache_path)).amax
    first, exact = calibrator.statistics.first_batch, calibrator.statistics.histograms
    names = [name for name in theirs if name in first]
    found = {
        label: [(search(first[n].counts, **(RULE | change)) + 0.5) * first[n].limit / SEARCH_BINS for n in names]
        for label, change in VARIANTS.items()
    }
    found["independent of order (plain entropy)"] = [Entropy().amax(exact[n]) for n in names]
    return {label: np.array(values) / [theirs[n] for n in names] - 1 for label, values in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("pairs", nargs="+", metavar="MODEL=CACHE")
    parser.add_argument("--num-images", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--preprocess", default="imagenet")
    parser.add_argument("--plot", help="SVG file")
    options = parser.parse_args()
    parts = [errors(options, *pair.split("=", 1)) for pair in options.pairs]
    print("| rule | within 0.2 % | within 1 % | within 10 % | median ratio |\n|---|---|---|---|---|")
    for label in parts[0]:
        error = np.concatenate([part[label] for part in parts])
        shares = " | ".join(f"{100 * (abs(error) <= bound).mean():.1f} %" for bound in (0.002, 0.01, 0.1))
        print(f"| {label} | {shares} | {1 + np.median(error):.4f} |")
    if options.plot:
        draw(parts, options.plot)


def draw(parts, path):
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5))
    for label in parts[0]:
        error = np.sort(np.maximum(abs(np.concatenate([part[label] for part in parts])), 1e-8))
        axes.step(error, np.linspace(0, 100, len(error)), where="post", label=label)
    axes.set(xscale="log", xlabel="distance to TensorRT's amax, relative", ylabel="% of tensors within it")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
