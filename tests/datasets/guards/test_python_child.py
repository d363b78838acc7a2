"""Other Pythons: what they import, and from where."""

import subprocess
import sys

import pytest

from datasets.guards.python_child import started_python

PROGRAM = "print(sys.path)\n"
LONG = 120  # seconds after which a test has hung


def said_by(program):
    with started_python(program, flags=("-S",), said=subprocess.PIPE) as child:
        try:
            said, _ = child.communicate(timeout=LONG)
        finally:
            child.kill()
    assert child.returncode == 0, said
    return said.decode()


@pytest.mark.parametrize("name", ["json.py", "re.py"])
def test_files_of_the_working_folder_are_not_imported(tmp_path, monkeypatch, name):
    """Python puts it first for such programs; this process, started as a command, does not have it."""
    (tmp_path / name).write_text("raise SystemExit('the user's file was run')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert said_by(PROGRAM) == f"{sys.path}\n"


def test_it_imports_from_the_same_places_whatever_else_stands_among_them(tmp_path, monkeypatch):
    """Imports pass over what is no text, which programs put there: None, a number, a path."""
    texts = ["", str(tmp_path / "half of a character \udcff"), *sys.path]
    monkeypatch.setattr(sys, "path", [None, 3, b"bytes", tmp_path, *texts])
    assert said_by("print(ascii(sys.path))\n") == f"{texts!a}\n"
