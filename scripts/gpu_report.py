"""Measure the comparison on an NVIDIA GPU and write docs/gpu-results.md.

python scripts/gpu_report.py --shared ../shared --torch /usr/bin/python3 [SECTION...]

Rows are kept in --results as they are measured, and are not measured again. --page only writes the page:

python scripts/gpu_report.py --page --results docs/gpu-results.json
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gpu_sections.bench import ALGORITHMS, MODELS, Bench, Results  # noqa: E402 - the checkout need not be installed
from gpu_sections.page import SECTIONS, measure, page  # noqa: E402
from gpu_sections.placements import WAYS  # noqa: E402

from quant.errors import QuantError  # noqa: E402

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"any of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="models, data, reference caches")
    parser.add_argument("--work", type=Path, default=Path("gpu-report"), help="scratch folder")
    parser.add_argument("--results", type=Path, help="file that keeps the rows; default results.json in --work")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "gpu-results.md")
    parser.add_argument("--level", type=int, default=3, help="builder effort, 0 to 5")
    parser.add_argument("--models", nargs="*", default=list(MODELS), help="models to measure")
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), help="algorithms to measure")
    parser.add_argument("--torch", help="Python interpreter with PyTorch and torchvision, for the deployment section")
    parser.add_argument("--net", nargs="+", default=[], metavar="NAME=FILE", help="other nets for CIFAR-10, by name")
    parser.add_argument("--detector", type=Path, help="detector for the section placements (YOLO's preprocessing)")
    parser.add_argument("--photos", type=Path, help="photographs for the detector")
    parser.add_argument("--ways", nargs="*", default=[], help=f"placements to measure one by one: {', '.join(WAYS)}")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    options = parser.parse_args()
    unknown = sorted(set(options.sections) - set(SECTIONS))
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    strange = sorted(set(options.ways) - set(WAYS))
    if strange:
        parser.error(f"no way {', '.join(strange)}; there are {', '.join(WAYS)}")
    results = Results(options.results or options.work / "results.json")
    if not options.page:
        chosen = tuple(options.models), tuple(options.algorithms)
        nets = {name: Path(path) for name, _, path in (text.partition("=") for text in options.net)}
        bench = Bench(
            options.shared,
            options.work,
            results,
            options.level,
            *chosen,
            options.torch,
            nets,
            options.detector,
            options.photos,
            tuple(options.ways),
        )
        try:
            measure(bench, options.sections or list(SECTIONS), lambda line: print(line, flush=True))
        except QuantError as error:
            sys.exit(f"gpu_report: {error}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(
        page(results, "python scripts/gpu_report.py --shared ../shared --torch python3 --level LEVEL"), "utf-8"
    )
