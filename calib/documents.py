"""JSON from outside, checked against a type before anything looks into it.

The types are plain dataclasses. msgspec refuses what is no JSON (NaN, lone surrogates, invalid UTF-8), numbers that no
float holds, nesting beyond Python's stack, and values of another type.
"""

from __future__ import annotations

import codecs
import re
from typing import TypeVar

T = TypeVar("T")


class DocumentError(ValueError):
    """A text is no JSON, or not what was expected. The message is one line that says where in it."""


def document_from_json(kind: type[T], text: bytes | str) -> T:
    """Parse and check a document.

    Args:
        kind: What is expected: a dataclass, or a type made of such, lists, dicts and numbers. Other keys are ignored.
        text: The JSON.

    Raises:
        DocumentError: It is something else.
    """
    import msgspec

    plain = text.removeprefix(codecs.BOM_UTF8) if isinstance(text, bytes) else text.removeprefix("\ufeff")
    try:
        return msgspec.json.decode(plain, type=kind)
    except msgspec.ValidationError as error:
        raise DocumentError(_in_our_words(str(error))) from error
    except RecursionError as error:
        raise DocumentError("not valid JSON: nested too deeply") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise DocumentError(f"not valid JSON: {error}") from error


def _in_our_words(message: str) -> str:
    """`Expected `str`, got `int` - at `$.source.images[0][2]`` as 'source.images[0][2]: expected str, found int'."""
    what, _, where = message.partition(" - at ")
    text = re.sub("`", "", f"{what[:1].lower()}{what[1:]}").replace(", got ", ", found ")
    place = where.strip("`").removeprefix("$").removeprefix(".")
    return f"{place}: {text}" if place else text
