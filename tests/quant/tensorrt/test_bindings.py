import ast
import json
import re
from pathlib import Path

import pytest

import quant
from quant.tensorrt.bindings import (
    EVERYWHERE,
    FOR_RTX,
    FROM_10,
    UNTIL_10,
    TensorRTError,
    api_names,
    load_tensorrt_for_rtx,
)

RELEASES = {8: "8.6.0", 10: "10.16.1.11", 11: "11.4.0.106"}
# Attributes of our own, Python's, NumPy's and onnx's objects that TensorRT happens to have too.
NAMESAKES = {
    "FLOAT16",
    "__init__",
    "append",
    "builder",
    "data",
    "device_memory",
    "dims",
    "extend",
    "engine",
    "kind",
    "major",
    "max",
    "pop",
}
NAMESAKES |= {
    "precision",
    "scales",
    "size",
    "start",
    "tactic_sources",
    "weights",
    "release",
    "min",
    "remove",
    "update",
    "clear",
}
SOURCES = sorted((Path(quant.__file__).parent / "tensorrt").rglob("*.py"))


@pytest.fixture(scope="module")
def listing(shared):
    """Classes, members and functions of a release's real bindings."""
    return lambda major: json.loads((shared / "reference" / "tensorrt-api" / f"{RELEASES[major]}.json").read_text())


@pytest.fixture(scope="module")
def rtx():
    """The bindings of TensorRT for RTX themselves."""
    try:
        return load_tensorrt_for_rtx().module
    except TensorRTError as error:
        pytest.skip(str(error))


def has(listed, name):
    owner, _, member = name.partition(".")
    entry = listed.get(owner)
    return entry is not None and (not member or member in entry.get("attrs", {}) or member in entry.get("members", {}))


@pytest.mark.parametrize("major", RELEASES)
def test_everything_that_the_code_touches_exists_in_that_release(listing, major):
    listed = listing(major)
    assert [name for name in api_names(major) if not has(listed, name)] == []


def test_everything_that_the_code_touches_exists_in_tensorrt_for_rtx(rtx):
    def found(name):
        owner, _, member = name.partition(".")
        return hasattr(rtx, owner) and (not member or hasattr(getattr(rtx, owner), member))

    assert [name for name in api_names(11, for_rtx=True) if not found(name)] == []
    assert [name for name in UNTIL_10.split() if found(name)] == []


@pytest.mark.parametrize(("table", "major"), [(UNTIL_10, 11), (FROM_10, 8), (FOR_RTX, 10), (FOR_RTX, 11)])
def test_names_kept_from_a_release_are_really_absent_there(listing, table, major):
    listed = listing(major)
    assert [name for name in table.split() if has(listed, name) and name.partition(".")[2]] == []


def test_the_code_touches_nothing_that_is_not_listed(listing):
    assert {"bindings.py", "builder.py", "engine.py", "calibrator.py"} <= {path.name for path in SOURCES}
    known = set()
    for major in RELEASES:
        for owner, entry in listing(major).items():
            if isinstance(entry, dict):
                known.update({owner, *entry.get("attrs", {}), *entry.get("members", {})})
    listed = {
        part for table in (EVERYWHERE, UNTIL_10, FROM_10, FOR_RTX) for name in table.split() for part in name.split(".")
    }
    touched = {
        node.attr: path.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in known
    }
    assert {name: path for name, path in touched.items() if name not in listed | NAMESAKES} == {}


def test_what_the_migration_guide_calls_gone_is_in_10_and_not_in_11(listing):
    guide = Path(__file__).resolve().parents[3] / "docs" / "migrating.md"
    (rows,) = re.findall(r"^\| gone \|.*\n\|[-|]+\n((?:\|.*\n)+)", guide.read_text(encoding="utf-8"), re.MULTILINE)
    gone = [name for row in rows.splitlines() for name in re.findall(r"`([\w.]+)`", row.split(" | ")[0])]
    assert len(gone) > 10
    assert [name for name in gone if not has(listing(10), name)] == []
    assert [name for name in gone if has(listing(11), name)] == []
