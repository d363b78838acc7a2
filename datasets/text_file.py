"""Reading text files that a user wrote, as UTF-8 with or without the byte order mark that Windows editors add."""

import sys
from pathlib import Path
from typing import Any

from datasets.errors import DatasetError
from datasets.guards.regular_file import whole_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

_MOST_BYTES = 256 * 2**20


def text_from_file(path: Path, what: str) -> str:
    """The text of a file.

    Args:
        path: The file.
        what: What is expected there, for the error.

    Raises:
        DatasetError: The file does not exist, cannot be read, or is not UTF-8.
    """
    try:
        contents = whole_file(path, _MOST_BYTES)
        if contents is None:
            raise DatasetError(f"{path}: expected a {what}, found a file of over {_MOST_BYTES / 2**20:.0f} MiB")
        return contents.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; expected a {what}") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: {what} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DatasetError(f"{path}: {what} cannot be read: {error.strerror}") from None
    except ValueError as error:  # a path that no file can have
        raise DatasetError(f"{path!s:.200}: {what} cannot be read: {error}") from None


def table_from_toml(path: Path, what: str) -> dict[str, Any]:
    """The keys and values of a TOML file.

    Args:
        path: The file.
        what: What is expected there, for the error.

    Raises:
        DatasetError: The text cannot be read, see `text_from_file`, or is not valid TOML.
    """
    try:
        table: dict[str, Any] = tomllib.loads(text_from_file(path, what))
    except tomllib.TOMLDecodeError as error:
        raise DatasetError(f"{path}: not valid TOML: {error}") from None
    except (RecursionError, ValueError) as error:  # brackets in brackets; numbers of thousands of digits
        found = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        raise DatasetError(f"{path}: cannot be read as TOML: {found}") from None
    return table
