"""Loads the user's `file.py:callable`, with errors that name the line of the user's own file."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quant.errors import SettingsError

# Whatever the user's code raises; a script that ends with sys.exit() must not end the command as if it were done.
OF_USER_CODE = (Exception, SystemExit)


def is_code(spec: str) -> bool:
    """Does a text name a callable in a Python file?"""
    file, separator, attribute = spec.rpartition(":")
    return bool(separator) and file.endswith(".py") and attribute.isidentifier()


def file_of(spec: str) -> str:
    """The file of a `file.py:callable`."""
    return spec.rpartition(":")[0]


def load_callable(spec: str, what: str) -> Callable[..., Any]:
    """Import a file and return the callable in it.

    The file can import from its own folder, as it can when Python runs it. No bytecode is left there.

    Args:
        spec: `file.py:callable`.
        what: What it is for, such as "metric"; for messages.

    Raises:
        SettingsError: The spec has another form, there is no such file or callable, or importing the file fails.
    """
    name, separator, attribute = spec.rpartition(":")
    path = Path(name)
    if not (separator and path.suffix == ".py" and attribute.isidentifier()):
        raise SettingsError(f"{what}: expected file.py:callable, found '{spec}'")
    if not path.is_file():
        raise SettingsError(f"{what}: {path}: no such file; expected file.py:callable")
    found = importlib.util.spec_from_file_location(f"calib_user_{path.stem}", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.path.insert(0, str(path.parent.absolute()))
    writes_none, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        found.loader.exec_module(module)
    except OF_USER_CODE as error:
        raise SettingsError(f"{what}: {path} cannot be imported: {described(error, path)}") from error
    finally:
        sys.dont_write_bytecode = writes_none
        sys.path.remove(str(path.parent.absolute()))
    function: Any = getattr(module, attribute, None)
    if not (callable(function) or callable(getattr(function, "score", None))):  # an object with a method for all images
        there = ", ".join(sorted(key for key, value in vars(module).items() if callable(value) and key[0] != "_"))
        raise SettingsError(f"{what}: {path} has no callable '{attribute}'; it has {there or 'none'}")
    result: Callable[..., Any] = function
    return result


def described(error: BaseException, path: str | Path) -> str:
    """An error of the user's code on one line, with the last line number in the user's file."""
    frames = traceback.extract_tb(error.__traceback__)
    line = next((f.lineno for f in reversed(frames) if Path(f.filename).name == Path(path).name), None)
    if line is None and isinstance(error, SyntaxError):
        line = error.lineno
    where = f"line {line}: " if line else ""
    return " ".join(f"{where}{type(error).__name__}: {error}".split())
