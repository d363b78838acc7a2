"""Write docs/benchmarks.md and its plot from the figures that `scripts/bench_calibration.py --results` kept.

python scripts/benchmark_page.py docs/benchmarks.jsonl [--out docs]
"""

import argparse
from pathlib import Path

from benchmark.page import write_page


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for the page and the plot")
    options = parser.parse_args()
    print(write_page(options.results, options.out))


if __name__ == "__main__":
    main()
