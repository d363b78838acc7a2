"""Measure the comparison on an NVIDIA GPU and write docs/gpu-results.md.

python scripts/gpu_report.py --shared ../shared --torch /usr/bin/python3 [parity accuracy latency deployment reuse]
"""

import argparse
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from quant.gpu_report import SECTIONS, Bench, measure, page  # noqa: E402 - the checkout need not be installed

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="what to measure; all by default")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="models, data, reference caches")
    parser.add_argument("--work", type=Path, default=Path("gpu-report"), help="scratch folder")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "gpu-results.md")
    parser.add_argument("--level", type=int, default=3, help="builder effort, 0 to 5")
    parser.add_argument("--torch", help="Python interpreter with PyTorch and torchvision, for the deployment section")
    options = parser.parse_args()
    bench = Bench(options.shared, options.work, options.level, options.torch)
    measure(bench, options.sections or list(SECTIONS), lambda line: print(line, flush=True))
    options.out.write_text(page(bench, shlex.join(["python", *sys.argv])), encoding="utf-8")
