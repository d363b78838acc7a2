"""TOML files that a user wrote."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from calib.regular_files import bytes_of_file, text_from_bytes
from quant.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MOST_BYTES = 1 << 20


def table_from_toml_file(path: Path) -> tuple[dict[str, Any], bytes]:
    """The keys and values of a TOML file, and the bytes that they were read from.

    Raises:
        SettingsError: It cannot be read, has more than 1 MiB, or is no TOML in UTF-8.
    """
    try:
        contents = bytes_of_file(path, _MOST_BYTES)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return tomllib.loads(text_from_bytes(contents)), contents
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: not valid TOML: nested too deeply") from error
    except ValueError as error:  # what the parser raises, and numbers of thousands of digits
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
