"""Make the gallery of the site: reports of the samples, as the toolkit writes them.

    python scripts/make_gallery.py [FOLDER]

FOLDER is build/gallery by default, where mkdocs looks for them. It gets a page for each report, and gallery.json.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from quant.report.views.headline import headline  # noqa: E402

CALIB = [sys.executable, "-c", "from calib.cli import main; main()"]


class Entry(NamedTuple):
    """A report: its page, what it shows, the demo it is made of, what is run there, and the folder of the report."""

    name: str
    title: str
    sample: str
    commands: tuple[str, ...]
    out: str = "calib-out"


COMPARED = (
    "calib run --algo minmax --out minmax",
    "calib run --algo percentile --percentile 99.9 --out percentile",
    "calib compare minmax percentile",
)
MIGRATED = (
    "calib run --algo minmax --out before",
    "calib migrate before/calibration.cache --model model.onnx --data imgs/",
)
ENTRIES = (
    Entry("classifier", "A classifier with labels", "classify", ("calib run --data imgs/ --algo entropy",)),
    Entry("unlabelled", "The same images without labels", "classify", ("calib run --data imgs/ --no-labels",)),
    Entry("detector", "A detector", "detect", ("calib run --data imgs/",)),
    Entry("comparison", "Two algorithms against each other", "classify", COMPARED, "calib-compare"),
    Entry("migration", "An old TensorRT cache taken over", "classify", MIGRATED, "calib-migrate"),
)


def make(entry, folder):
    """Run an entry's commands in a new copy of its sample; gives its row of gallery.json."""
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch) / "sample"
        for command in (f"calib demo --task {entry.sample} {project}", *entry.commands):
            cwd = project if project.exists() else scratch
            words = shlex.split(command)[1:]
            done = subprocess.run(
                [*CALIB, *words], cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False
            )
            if done.returncode:
                raise SystemExit(f"{entry.name}: {command}: exit {done.returncode}\n{done.stderr.decode()}")
        out = project / entry.out
        document = json.loads((out / "report.json").read_text(encoding="utf-8"))
        shutil.copy(out / "report.html", folder / f"{entry.name}.html")
    return {
        "title": entry.title,
        "file": f"{entry.name}.html",
        "command": entry.commands[-1],
        "headline": headline(document),
    }


def main(folder, entries=ENTRIES):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [make(entry, folder) for entry in entries]
    (folder / "gallery.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"{folder}: {len(rows)} reports, {sum(path.stat().st_size for path in folder.glob('*.html')):,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "gallery")
