import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

import calib

CHECKOUT = Path(calib.__file__).parents[1]


@pytest.fixture
def run_with_path(tmp_path):
    """Runs a program with some folders in front of everything else that can be imported."""

    def run(program, *folders, site=True):
        head = f"import sys; sys.path[:0] = {[str(folder) for folder in folders]!r}; "
        arguments = [sys.executable, *([] if site else ["-S"]), "-c", head + program]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)

    return run


@pytest.fixture
def foreign(tmp_path):
    """Another distribution's `datasets`."""
    package = tmp_path / "site" / "datasets"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('raise RuntimeError("imported")\n__version__ = "3.0.0"\n')
    return package


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--data", "imgs"], ["cache", "show", "x"], []])
def test_another_datasets_stops_calib_with_one_line_before_anything_else(run_with_path, foreign, arguments):
    program = f"from calib.cli import main; main({arguments!r})"
    done = run_with_path(program, foreign.parent, CHECKOUT)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "calib: error: import package 'datasets': expected the one from calib-int8, found another distribution's at "
        f"{foreign}; install calib-int8 into an environment of its own (python -m venv), without the other 'datasets'"
    ]


def test_no_datasets_at_all_is_said(run_with_path, tmp_path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "calib").symlink_to(CHECKOUT / "calib")
    (tmp_path / "alone" / "click").symlink_to(Path(click.__file__).parent)
    program = "from calib.cli.parts.shadowing import shadowing_datasets; print(shadowing_datasets())"
    done = run_with_path(program, tmp_path / "alone", site=False)
    assert done.stdout.startswith("import package 'datasets': expected the one from calib-int8, found none;")


def test_our_own_datasets_is_fine_also_beside_a_folder_of_that_name(run_with_path, tmp_path):
    (tmp_path / "work" / "datasets" / "imgs").mkdir(parents=True)  # somebody's data, not a package
    program = "from calib.cli.parts.shadowing import shadowing_datasets; print(shadowing_datasets())"
    assert run_with_path(program, tmp_path / "work", CHECKOUT).stdout == "None\n"
