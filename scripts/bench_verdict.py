"""Times whole runs of `calib run`, from the command to the report, of this tree and of another one, in turn.

    python scripts/bench_verdict.py model.onnx imgs/ --eval labelled-imgs/ --against ../older -- --preprocess cifar10

Each run is a process of its own in an empty folder, so nothing of an earlier one is used again. What follows `--` goes
to `calib run` in both trees. Prints seconds, where the time went, the ratio, and what each came to.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-c", "from calib.cli import main; main()", "run"]


def one_run(tree, arguments):
    """A run's seconds, and its report."""
    paths = (str(tree), os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with tempfile.TemporaryDirectory(prefix="bench-verdict-") as folder:
        start = time.perf_counter()
        done = subprocess.run(
            [*COMMAND, *arguments, "--out", "out"],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - start
        report = Path(folder) / "out" / "report.json"
        if not report.is_file():  # the verdict's own codes, such as 3 for a drop that is too large, are results
            sys.exit(f"{tree}: exit code {done.returncode}: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
        return seconds, json.loads(report.read_text(encoding="utf-8"))


def stages(report, seconds):
    """Lines that say where a run's time went, as far as its report does."""
    timeline, lines = report.get("timeline", {}), []
    for stage, spent in report.get("timings", {}).items():
        span = timeline.get(stage)
        lines.append(f"{spent:9.2f}" + (f"{span[0]:9.2f}{span[1]:9.2f}" if span else " " * 18) + f"  {stage}")
    if timeline:
        last = max(end for _, end in timeline.values())
        lines.append(f"{seconds - last:9.2f}{' ' * 18}  process and imports before, report and exit after")
    return lines


def answers(report):
    """What a run found, by build."""
    return {build["precision"]: (build.get("top1"), build.get("sqnr_db")) for build in report["builds"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help="calibration images")
    parser.add_argument("--eval", type=Path, help="evaluation images")
    parser.add_argument("--against", type=Path, help="another checkout of this project, such as a worktree")
    parser.add_argument("--backend", default="tensorrt", help="default: %(default)s")
    parser.add_argument("--builder-level", default="0", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--no-warm-up", action="store_true", help="leave out a first run that is not counted")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:end])
    arguments = ["--model", str(options.model.resolve()), "--data", str(options.data.resolve())]
    arguments += ["--eval", str(options.eval.resolve())] if options.eval else []
    arguments += ["--backend", options.backend, *sys.argv[end + 1 :]]
    arguments += ["--builder-level", options.builder_level] if options.backend == "tensorrt" else []
    trees = {"this": ROOT} | ({"against": options.against.resolve()} if options.against else {})
    seconds, reports = {name: [] for name in trees}, {}
    if not options.no_warm_up:  # libraries and images come into the machine's memory
        print(f"not counted: {one_run(ROOT, arguments)[0]:.2f} s", flush=True)
    for turn in range(options.rounds):
        for name in list(trees)[:: 1 if turn % 2 == 0 else -1]:
            spent, reports[name] = one_run(trees[name], arguments)
            seconds[name].append(spent)
            print(f"round {turn + 1}, {name}: {spent:.2f} s", flush=True)
            for line in stages(reports[name], spent):
                print(line, flush=True)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    result = {"seconds": seconds, "medians": medians, "backend": reports["this"]["backend"], "cores": os.cpu_count()}
    if options.against:
        ratios = [mine / other for mine, other in zip(seconds["this"], seconds["against"], strict=True)]
        result |= {"ratio": medians["this"] / medians["against"], "ratios": ratios}
        result |= {"answers": {name: answers(report) for name, report in reports.items()}}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
