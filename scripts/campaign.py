"""Run the reliability campaign: hostile inputs, kills and concurrent runs, and count what must never happen.

    python scripts/campaign.py --minutes 10                      # all parts, each for its share of the time
    python scripts/campaign.py --parts images,packs --seed 7     # whole parts, with other inputs
    python scripts/campaign.py --case images-7-123               # one case again

With --page docs, the figures go into docs/reliability.md, beside those of the parts that were not run. Exit code 1 if
there was a fault.
"""

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from campaign.page import write_page  # noqa: E402 - the checkout need not be installed
from campaign.parts import PARTS, part_module, present  # noqa: E402
from campaign.runner import run_part, run_parts  # noqa: E402

WHOLE = 24 * 60  # minutes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=WHOLE, help="for all parts together")
    parser.add_argument("--seed", type=int, default=0, help="another seed tries other cases")
    parser.add_argument("--parts", default=",".join(filter(present, PARTS)), help="only these, by commas")
    parser.add_argument("--share", type=float, default=1.0, help="of the cases of a whole campaign")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time, each on a processor of its own")
    parser.add_argument("--case", metavar="PART-SEED-NUMBER", help="only this case")
    parser.add_argument("--page", type=Path, metavar="FOLDER", help="write reliability.md there")
    options = parser.parse_args()
    if options.case:
        name, seed, number = options.case.rsplit("-", 2)
        results = [run_part(name, int(seed), 1, WHOLE * 60, print, first=int(number))]
    elif options.jobs > 1:
        sizes = {n: max(1, round(part_module(n).SIZE * options.share)) for n in options.parts.split(",")}
        results = run_parts(sizes, options.seed, options.minutes * 60, options.jobs, print)
    else:
        results = []
        end = time.monotonic() + options.minutes * 60
        names = options.parts.split(",")
        for i, name in enumerate(names):
            size = max(1, round(part_module(name).SIZE * options.share))
            seconds = (end - time.monotonic()) / (len(names) - i)  # what a part leaves is for those after it
            results.append(run_part(name, options.seed, size, seconds, print))
    for result in results:
        ends = ", ".join(f"{count} {word}" for word, count in result.words.most_common())
        print(
            f"{result.name}: {result.tried} of {result.size} tried, {len(result.faults)} faults; {ends}; slowest "
            f"{result.slowest:.1f} s, {result.peak_mb:.0f} MB at most, {result.seconds:.0f} s"
        )
    if options.page is not None:
        print(write_page(results, options.seed, options.page))
    sys.exit(any(result.faults for result in results))


if __name__ == "__main__":
    main()
