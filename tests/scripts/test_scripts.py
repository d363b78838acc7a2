"""The shell scripts parse, stay short, and the sample's training script compiles."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELL = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"]


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


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.name)
def test_a_python_script_compiles(script):
    compile(script.read_text(encoding="utf-8"), str(script), "exec")
