"""Who may import whom, and what an import may cost."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("calib", "quant", "datasets")
HEAVY = ("numpy", "numba", "h5py", "PIL", "onnx", "onnxruntime", "torch", "tensorrt", "cuda", "matplotlib", "jinja2")


def modules():
    """Every source file of the packages: dotted name -> path."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


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


def forbidden(module):
    """What of ours a module may not import."""
    if module.startswith("calib.cli"):
        return ()
    own = module.split(".")[0]
    return {"datasets": ("calib", "quant"), "calib": ("datasets", "quant", "calib.cli"), "quant": ("calib.cli",)}[own]


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_follow_the_arrows(module):
    wrong = [
        name
        for name in imported(modules()[module])
        for package in forbidden(module)
        if name == package or name.startswith(f"{package}.")
    ]
    assert wrong == []


def test_the_arrows_are_looked_at_in_every_package():
    assert {name.split(".")[0] for name in modules()} == set(PACKAGES)
    assert "calib.provenance" in imported(ROOT / "quant" / "calibrate.py")  # found where it is known to stand


def loaded_after(program):
    """Which heavy packages a program has loaded at its end."""
    code = f"{program}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.splitlines()[-1].split()


def test_importing_the_packages_loads_nothing_heavy():
    assert loaded_after("import calib, quant, datasets") == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["cache", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    program = (
        f"from calib.cli import main\ntry:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert loaded_after(program) == []


def test_help_answers_at_once():
    """Seconds depend on the machine and on what else it does; how much is loaded beside Python and click does not."""
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
from pathlib import Path
from calib.inspection import text_from_cache_file
print(text_from_cache_file(Path({str(cache)!r})))
"""
    assert loaded_after(program) == ["numpy"]


def test_a_run_loads_nothing_that_it_does_not_need(demo):
    program = f"""
from pathlib import Path
from quant import run
from quant.settings import settings_from_options
options = dict(data={str(demo / "imgs")!r}, num_images=32, backend="onnxruntime", out=Path({str(demo / "out")!r}))
run(settings_from_options(options, Path({str(demo)!r})))
"""
    loaded = set(loaded_after(program))
    assert loaded > {"numba", "onnxruntime", "jinja2"}
    assert not loaded & {"torch", "tensorrt", "cuda"}


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
    """Importing a module sets its name in the package, in place of the function of that name."""
    inside = {path.stem for path in (ROOT / package).iterdir()}
    assert inside.isdisjoint(importlib.import_module(package).__all__)
