"""The scripts parse and stay short, and the Python ones say what they are for."""

import ast
import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELL = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"]
PYTHON = sorted((ROOT / "scripts").glob("*.py"))


def test_the_scripts_of_the_readme_are_there():
    assert {"demo.sh", "test.sh", "environment.sh"} <= {path.name for path in SHELL}


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_a_shell_script_parses(script):
    if not script.exists():
        pytest.skip("the source distribution leaves it out")
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").iterdir()), ids=lambda path: path.name)
def test_a_script_has_at_most_100_lines(script):
    if script.is_file():
        assert len(script.read_text(encoding="utf-8").splitlines()) <= 100


@pytest.mark.parametrize("script", PYTHON, ids=lambda path: path.name)
def test_a_python_script_says_what_it_is_for_and_imports_what_the_packages_have(script):
    tree = ast.parse(script.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("calib", "datasets", "quant"):
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == [], node.module


@pytest.mark.parametrize(
    "name",
    [
        "bench_calibration.py",
        "bench_decoding.py",
        "bench_evaluation.py",
        "make_loud_channels.py",
        "bench_recovery.py",
        "bench_verdict.py",
        "bench_workers.py",
        "try_recovery.py",
        "compare_entropy.py",
        "gpu_report.py",
        "explicit_support.py",
    ],
)
def test_a_script_that_takes_options_explains_them(name, monkeypatch, capfd):
    script = ROOT / "scripts" / name
    monkeypatch.setattr("sys.argv", [str(script), "--help"])
    monkeypatch.setattr("sys.path", [str(script.parent), *sys.path])  # as Python begins a script
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    told = capfd.readouterr()
    assert (ended.value.code, told.err) == (0, "")
    assert f"usage: {name}" in told.out
