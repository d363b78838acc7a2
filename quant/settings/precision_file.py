"""`precision.toml`: which products stay float in INT8, and why. A search writes it, people edit it, builds read it.

    [[float]]
    nodes = ["/head/Conv", "/blocks.*/attn/*"]
    why = "29.1 dB when they alone are quantized"

A name stands for the product of that name; where there is none, it is a pattern of the shell's kind (`*`, `?`, `[ab]`).
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from quant.errors import SettingsError
from quant.settings.kinds import short
from quant.settings.toml_file import table_from_toml_file

_HEADING = """\
# Products that stay float in the INT8 build; calib run --precisions FILE takes them from here.
# `nodes` are names of the model's nodes, or patterns with * and ?; `why` is for people.
"""


@dataclass(frozen=True)
class FloatRule:
    """Products that stay float.

    Attributes:
        nodes: Names or patterns.
        why: The reason, for people.
    """

    nodes: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True)
class PrecisionFile:
    """What a file says.

    Attributes:
        path: The file.
        sha256: Of its bytes.
        rules: In order.
    """

    path: Path
    sha256: str
    rules: tuple[FloatRule, ...]

    def float_nodes(self, products: Collection[str]) -> frozenset[str]:
        """The products of a model that stay float.

        Args:
            products: Names of all, see `quant.qdq.operators.node_key`.

        Raises:
            SettingsError: A name or pattern stands for none of them.
        """
        found: set[str] = set()
        for place, rule in enumerate(self.rules, 1):
            for wanted in rule.nodes:
                these = [wanted] if wanted in products else [name for name in products if fnmatchcase(name, wanted)]
                if not these:
                    raise SettingsError(
                        f"{self.path}: float {place}: no product is called {short(wanted)}; {_near(wanted, products)}"
                    )
                found.update(these)
        return frozenset(found)


def read_precision_file(path: Path) -> PrecisionFile:
    """Read a file.

    Raises:
        SettingsError: It cannot be read, or holds something else.
    """
    document, content = table_from_toml_file(path)
    unknown = sorted(document.keys() - {"float"})
    if unknown:
        raise SettingsError(f"{path}: expected [[float]] only, found {short(unknown[0])}")
    tables = document.get("float", [])
    if not isinstance(tables, list):
        raise SettingsError(f"{path}: float: expected [[float]] with nodes and why, found {short(tables)}")
    rules = tuple(_rule(table, f"{path}: float {place}") for place, table in enumerate(tables, 1))
    return PrecisionFile(path, hashlib.sha256(content).hexdigest(), rules)


def text_from_rules(rules: Iterable[FloatRule]) -> str:
    """The text of a file."""
    parts = [
        f"\n[[float]]\nnodes = [{', '.join(_quoted(name) for name in rule.nodes)}]\nwhy = {_quoted(rule.why)}\n"
        for rule in rules
    ]
    return _HEADING + "".join(parts)


def _rule(table: Any, where: str) -> FloatRule:  # noqa: ANN401 - TOML holds several types
    if not isinstance(table, dict):
        raise SettingsError(f"{where}: expected a table with nodes and why, found {short(table)}")
    unknown = sorted(table.keys() - {"nodes", "why"})
    if unknown:
        raise SettingsError(f"{where}: expected nodes and why, found {short(unknown[0])}")
    nodes, why = table.get("nodes"), table.get("why", "")
    if not isinstance(nodes, list) or not nodes or not all(isinstance(name, str) and name for name in nodes):
        raise SettingsError(f"{where}: nodes: expected a list of names or patterns, found {short(nodes)}")
    if not isinstance(why, str):
        raise SettingsError(f"{where}: why: expected a text in quotes, found {short(why)}")
    return FloatRule(tuple(nodes), why)


def _quoted(text: str) -> str:
    """A text as TOML's basic string, which is JSON's but for one control character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _near(wanted: str, products: Collection[str]) -> str:
    near = difflib.get_close_matches(wanted, list(products), 3, 0.5)
    named = near or sorted(products)[:3]
    return (
        f"{'near it are' if near else 'there are'} {', '.join(short(name) for name in named)}"
        if named
        else "the model has none"
    )
