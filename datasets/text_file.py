"""Text files that a user wrote: read as UTF-8, with or without the mark that editors on Windows begin it with."""

from pathlib import Path

from datasets.errors import DatasetError


def text_from_file(path: Path, what: str) -> str:
    """The text of a file.

    Args:
        path: The file.
        what: What is expected there, for the error.

    Raises:
        DatasetError: There is no such file, it cannot be read, or it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; expected a {what}") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: {what} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DatasetError(f"{path}: {what} cannot be read: {error.strerror}") from None
