"""Show what the algorithms do to four kinds of tensor: a table, and the two plots of docs/algorithms.md.

    python scripts/plot_algorithms.py [--out docs]

The tensors are drawn from seeded distributions, so everybody gets the same ones.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from calib import MSE, Entropy, Histogram, MinMax, Percentile

VALUES = 1 << 18
ALGORITHMS = {"minmax": MinMax(), "percentile": Percentile(), "entropy": Entropy(), "mse": MSE()}
STYLES = {"minmax": ("#c62828", "-"), "percentile": ("#ef6c00", "--"), "entropy": ("#1565c0", "-."), "mse": ("k", ":")}


def tensors():
    generator = np.random.default_rng(0)
    normal = generator.standard_normal(VALUES).astype(np.float32)
    places = np.arange(VALUES)
    return {
        "symmetric": normal,
        "Relu": np.maximum(normal, 0),
        "rare outliers": np.where(places % 10_000 == 0, np.float32(40), np.float32(1)) * normal,
        "loud channels": np.where(places % 10 == 0, np.float32(64), np.float32(1)) * normal,
    }


def errors(values, amax):
    """Mean squared error of rounding the values within amax, and of clipping the others."""
    squared = (np.clip(np.rint(values / amax * 127), -127, 127) * amax / 127 - values) ** 2
    clipped = np.abs(values) > amax
    return float(squared[~clipped].sum()) / values.size, float(squared[clipped].sum()) / values.size


def rows(values, found):
    magnitudes, power = np.abs(values), float(np.mean(values**2))
    typical = np.median(magnitudes[magnitudes > 0])
    for name, amax in found.items():
        rounding, clipping = errors(values, amax)
        yield (
            f"{name} | {amax:.3g} | {100 * (magnitudes > amax).mean():.3g} % | {rounding / power:.1e} | "
            f"{clipping / power:.1e} | {10 * np.log10(power / (rounding + clipping)):.1f} | {typical * 127 / amax:.1f}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default="docs", help="folder for the plots")
    out = parser.parse_args().out
    print("| tensor | algorithm | amax | clipped | rounding | clipping | SQNR, dB | steps of the median |")
    print("|---|---|---|---|---|---|---|---|")
    found = {}
    for tensor, values in tensors().items():
        histogram = Histogram()
        histogram.add(values)
        found[tensor] = {name: algorithm.amax(histogram) for name, algorithm in ALGORITHMS.items()}
        for row in rows(values, found[tensor]):
            print(f"| {tensor} | {row} |")
    draw(out / "algorithms.svg", found, draw_histogram)
    draw(out / "clipping-rounding.svg", found, draw_errors)


def draw(path, found, draw_one):
    plt.switch_backend("svg")
    plt.rcParams.update({"svg.hashsalt": "calib", "svg.fonttype": "none"})
    figure, grid = plt.subplots(2, 2, figsize=(9, 6.5))
    for axes, (tensor, values) in zip(grid.flat, tensors().items(), strict=True):
        draw_one(axes, np.abs(values))
        for name, amax in found[tensor].items():
            axes.axvline(amax, color=STYLES[name][0], linestyle=STYLES[name][1], linewidth=2, label=name)
        axes.minorticks_off()  # those of a logarithmic axis take most of the time
        axes.set_title(tensor, fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="lower center", ncols=7, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, metadata={"Date": None})


def draw_histogram(axes, magnitudes):
    axes.stairs(*np.histogram(magnitudes, bins=160), color="#b0bec5", fill=True)
    axes.set(yscale="log", xlabel="|x|", ylabel="values", xlim=(0, 1.08 * magnitudes.max()))


def draw_errors(axes, magnitudes):
    grid = np.geomspace(magnitudes.max() / 60, magnitudes.max() * 1.3, 48)
    parts = np.array([errors(magnitudes, amax) for amax in grid]) / np.mean(magnitudes**2)
    axes.plot(grid, parts[:, 0], color="#90a4ae", label="rounding")
    axes.plot(grid, np.where(parts[:, 1] > 0, parts[:, 1], np.nan), color="#8e6bbf", label="clipping")
    axes.plot(grid, parts.sum(axis=1), color="#455a64", linewidth=2.5, label="both")
    axes.set(xscale="log", yscale="log", xlabel="amax", ylabel="squared error / power", ylim=(3e-6, 2))


if __name__ == "__main__":
    main()
