"""Which module may import which, and what an import may cost."""

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from calib.algorithms import entropy_amax, mse_amax
from calib.histograms.histogram import Histogram

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("calib", "quant", "datasets")
HEAVY = (
    "numpy",
    "llvmlite",
    "numba",
    "h5py",
    "PIL",
    "onnx",
    "onnxruntime",
    "torch",
    "tensorrt",
    "tensorrt_rtx_bindings",
    "cuda",
    "matplotlib",
    "jinja2",
)


@cache
def modules():
    """Every source file of the packages: dotted name -> path."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


@cache
def imported(path):
    """What a file imports anywhere in it: dotted names, with each name that a `from` takes."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


# The rooms, lowest first. A file imports from its own row and from those above it in this list, never from one below.
# A module's row is the longest entry that its name begins with. Nothing of ours may be imported across `apart`.
ROOMS = (
    # datasets: images in, batches out
    "datasets.errors",
    "datasets.guards",
    "datasets.text_file datasets.field_checks datasets.decoding datasets.source datasets.images",
    "datasets.identity datasets.sampling datasets.labels datasets.preprocessing",
    "datasets.folder_contents datasets.batches",
    "datasets.image_folder",
    "datasets.arrays",
    "datasets.boxes datasets.masks datasets.values",
    "datasets.packs",
    "datasets.opening",
    "datasets",
    # calib: activations -> statistics -> amax -> cache
    "calib.errors calib.commits calib.interrupts calib.processors calib.names calib.texts",
    "calib.native",
    "calib.scratch calib.documents calib.regular_files",
    "calib.files calib.entropy",
    "calib.histograms",
    "calib.loops",
    "calib.algorithms",
    "calib.caches",
    "calib.calibrator calib.sample_project",
    "calib",
    # quant: models, builds, comparison, report
    "quant.errors quant.progress quant.child_process",
    "quant.settings",
    "quant.onnx_graph",
    "quant.backend",
    "quant.qdq",
    "quant.cuda",
    "quant.onnxruntime",
    "quant.tensorrt.bindings quant.tensorrt.log",
    "quant.tensorrt.rewrites",
    "quant.tensorrt.engines",
    "quant.tensorrt.building",
    "quant.tensorrt",
    "quant.collectors",
    "quant.evaluation",
    "quant.tasks",
    "quant.search",
    "quant.calibration",
    "quant.recovery",
    "quant.report.result",
    "quant.report.contents",
    "quant.report.views",
    "quant.report",
    "quant.jobs",
    "quant.api",
    "quant",
    "calib.cli",
)
FLOORS = {prefix: floor for floor, row in enumerate(ROOMS) for prefix in row.split()}
APART = {"datasets": ("calib", "quant"), "calib": ("datasets", "quant"), "quant": (), "calib.cli": ()}


def room(module):
    """The longest entry of the table that a module's name begins with; a package's own name is for its `__init__`."""
    parts = module.split(".")
    names = [".".join(parts[:size]) for size in range(len(parts), 0, -1)]
    return next((name for name in names if name in FLOORS), None)


def of_ours(module):
    """Our modules that a module imports anywhere in it; importing a package counts as importing its `__init__`."""
    found = set()
    for name in imported(modules()[module]):
        names = [name, name.rpartition(".")[0]]
        target = next((n for n in names if n in modules() or f"{n}.__init__" in modules()), None)
        if target is not None:
            found.add(target if target in modules() else f"{target}.__init__")
    return found - {module}


@cache
def arrows():
    return {(module, target) for module in modules() for target in of_ours(module)}


def test_every_file_stands_in_a_room():
    rooms = {module: room(module) for module in modules()}
    assert [module for module, found in rooms.items() if found is None] == []
    # Only a package's public names may be outside the rooms.
    outside = [module for module, found in rooms.items() if found in PACKAGES]
    assert sorted(outside) == sorted(f"{package}.__init__" for package in PACKAGES)


def test_no_import_runs_up():
    up = [(a, b) for a, b in arrows() if FLOORS[room(b)] > FLOORS[room(a)] and not faces(a)]
    assert up == []


def faces(module):
    """Whether it is a package's `__init__` that only re-exports names, and imports them for type checkers alone."""
    return module.removesuffix(".__init__") in PACKAGES


def test_datasets_and_the_library_part_of_calib_import_nothing_else_of_ours():
    for a, b in arrows():
        package = "calib.cli" if a.startswith("calib.cli") else a.split(".")[0]
        others = [*APART[package], *(["calib.cli"] if package != "calib.cli" else [])]
        assert not any(b == other or b.startswith(f"{other}.") for other in others), (a, b)


def test_there_is_no_circle():
    """Remove files that import nothing that is left, again and again: every file must go."""
    left = {module: {b for a, b in arrows() if a == module and not faces(a)} for module in modules()}
    while free := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in free:
            del left[module]
    assert left == {}


def test_the_arrows_are_looked_at_in_every_package():
    found = arrows()
    assert {a.split(".")[0] for a, _ in found} == set(PACKAGES)
    assert ("quant.calibration.stored", "calib.caches.provenance") in found  # known to exist
    assert ("quant.report.views.charts", "quant.report.views.svg") in found
    assert len(found) > 300


def test_folders_and_files_keep_to_one_subject():
    files = modules().values()
    lengths = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    assert lengths[-1] <= 400
    assert lengths[len(lengths) // 2] <= 150
    folders = Counter(path.parent for path in files)
    assert max(folders.values()) <= 15, folders.most_common(1)


def test_every_room_says_what_it_is_for():
    for module, path in modules().items():
        if module.endswith("__init__"):
            said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            assert said and len(said.splitlines()[0]) > 20, module


def loaded_after(program):
    """The heavy packages that a program has loaded when it ends."""
    code = f"{program}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.splitlines()[-1].split()


def test_importing_the_packages_loads_nothing_heavy():
    assert loaded_after("import calib, quant, datasets") == []


def test_help_answers_at_once():
    """Times depend on the machine and its load; the number of modules loaded besides Python and click does not."""
    program = (
        "import sys, click\nbefore = set(sys.modules)\nfrom calib.cli import main\n{}\n"
        "print(len(set(sys.modules) - before))"
    )
    call = "try:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    command = [sys.executable, "-c", program.format(call)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout.splitlines()[-1]) < 60  # 31 on Python 3.11, 12 of them our own commands


def test_a_look_at_a_cache_loads_numpy_alone(tmp_path):
    cache = tmp_path / "a.cache"
    cache.write_text("TRT-8600-EntropyCalibration2\nrelu: 3c010204\n")
    program = f"""
from calib.cli import main
try:
    main(["cache", "show", {str(cache)!r}])
except SystemExit as done:
    assert done.code == 0
"""
    assert loaded_after(program) == ["numpy"]


def test_what_a_job_reads_before_it_counts_loads_no_compiler():
    """Most commands never call the compiled loops, and a job that does loads them while it opens the images."""
    jobs = [name for name in modules() if re.fullmatch(r"(calib\.caches|quant\.jobs|quant\.tasks)\..*", name)]
    assert {"calib.caches.provenance", "quant.jobs.run", "quant.tasks.detection.matching"} <= set(jobs)
    assert not {"llvmlite", "numba"} & {*loaded_after(f"import {', '.join(jobs)}")}


def test_a_run_loads_nothing_that_it_does_not_need(colours):
    program = f"""
from pathlib import Path
from quant import run
from quant.settings.calib_toml import settings_from_options
options = dict(data={str(colours / "imgs")!r}, backend="onnxruntime", out=Path({str(colours / "out")!r}))
run(settings_from_options(options, Path({str(colours)!r})))
"""
    counted = Histogram()
    counted.add(range(100))
    assert all(search(counted) for search in (entropy_amax, mse_amax))  # what a run needs is compiled now
    loaded = set(loaded_after(program))
    assert loaded > {"llvmlite", "onnxruntime", "jinja2"}
    assert not loaded & {"numba", "torch", "tensorrt", "cuda"}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_resolves(package):
    module = importlib.import_module(package)
    assert module.__all__
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_name_is_taken_by_a_module(package):
    """Importing a module sets its name in the package, which replaces a function of that name."""
    inside = {path.stem for path in (ROOT / package).iterdir()}
    assert inside.isdisjoint(importlib.import_module(package).__all__)


@pytest.mark.parametrize(
    "words", [["run"], ["sweep"], ["sensitivity"], ["compare", "model.onnx", "model.onnx"], ["migrate", "old.cache"]]
)
def test_a_job_says_its_first_line_before_it_loads_anything_heavy(demo_master, words):
    """Times depend on the machine; what is loaded by then does not."""
    program = f"""
import os
from calib.cli.parts.terminal import TerminalConsole
class Said(BaseException):
    pass
def note(self, line):
    assert line.startswith("calib {words[0]}: ") and "model.onnx" in line, line
    raise Said
TerminalConsole.note = note
os.chdir({str(demo_master)!r})
from calib.cli import main
try:
    main({words!r})
except Said:
    pass
"""
    assert loaded_after(program) == []
