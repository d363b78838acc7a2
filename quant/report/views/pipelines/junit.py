"""A result as JUnit's XML, which CI systems show by name: a build that loses too much is a case that fails."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calib.files import Transaction
from calib.texts import plain_text
from quant.errors import SettingsError
from quant.report.views.headline import headline
from quant.report.views.names import build_names, examined_place

Document = dict[str, Any]
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """A test case.

    Attributes:
        name: What was checked.
        outcome: passed, failure, error or skipped.
        message: Why, in a line; what was measured where it passed.
    """

    name: str
    outcome: str
    message: str


def checked_junit_path(path: Path | None) -> Path | None:
    """The path, if a file of that name can be written without harm.

    Raises:
        SettingsError: It does not end in .xml, so that it may be something else.
    """
    if path is not None and path.suffix.lower() != ".xml":
        raise SettingsError(f"{path}: expected a name ending in .xml for --junit, found '{path.suffix}'; rename it")
    return path


def cases_from_report(document: Document) -> list[Case]:
    """A case for the baseline, and one for each build that is held against it."""
    names = build_names(document)
    invalid = document["verdict"] == "invalid"
    cases = [
        Case(f"{names[0]} is above chance", "failure" if invalid else "passed", document["reason"] if invalid else "")
    ]
    for place, (name, row) in enumerate(zip(names, document["builds"], strict=True)):
        if place:
            cases.append(_of_build(document, place, name, row, invalid=invalid))
    cases += [
        Case(f"{failed['precision'].upper()} can be built", "error", failed["reason"])
        for failed in document.get("failed_builds", ())
    ]
    return cases


def cases_from_sweep(document: Document, max_drop: float) -> list[Case]:
    """A case for the best of a sweep; the other rows are tried, not promised."""
    best = document["rows"][0]
    name = f"{best['name']}, the best of the sweep, loses no more than {max_drop:g}"
    if document["metric"]:
        return [Case(name, "skipped", "a metric of the user's own decides, whose limit calib run holds")]
    if best["drop_top1"] is None:
        return [Case(name, "skipped", "no labels: the drop is not known")]
    text = f"drop of top-1 {best['drop_top1']:+.2f} points"
    return [Case(name, "failure" if best["drop_top1"] > max_drop else "passed", text)]


def write_junit(path: Path, suite: str, cases: list[Case], seconds: float) -> None:
    """Write the cases, whole or not at all.

    Raises:
        OutputError: The file cannot be written.
    """
    with Transaction(path.parent) as files:
        files.stage(path.name).write_bytes(_xml(suite, cases, seconds))


def _of_build(document: Document, place: int, name: str, row: Document, *, invalid: bool) -> Case:
    limit, metric = document["max_drop"], document.get("metric")
    scored = metric["builds"][place] if metric else None
    title = f"{name} loses no more than {limit:g} {_unit(metric)}"
    if invalid:
        return Case(title, "skipped", "nothing was shown")
    examined = place == examined_place(document)
    if examined and document["verdict"] == "fail":
        return Case(title, "failure", document["reason"])
    if scored is not None and metric is not None:
        if metric.get("allowed_drop") is None:
            return Case(title, "skipped", "no labels: the drop is not known")
        drop, allowed = scored["drop"], metric["allowed_drop"]
    elif row["drop_top1"] is None:
        return Case(title, "skipped", "no labels: the drop is not known")
    else:
        drop, allowed = row["drop_top1"], limit
    text = headline(document) if examined else f"drop {drop:+.4g}"
    return Case(title, "failure" if drop > allowed else "passed", text)


def _unit(metric: Document | None) -> str:
    if metric is None:
        return "points of top-1"
    return f"points of {metric['name']}" if metric.get("unit") == "points" else f"% of {metric['name']}"


def _xml(suite: str, cases: list[Case], seconds: float) -> bytes:
    counts = {
        kind: str(sum(case.outcome == one for case in cases))
        for kind, one in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
    }
    root = ET.Element("testsuites")
    element = ET.SubElement(
        root, "testsuite", {"name": _plain(suite), "tests": str(len(cases)), **counts, "time": f"{seconds:.3f}"}
    )
    for case in cases:
        shown = ET.SubElement(element, "testcase", {"classname": _plain(suite), "name": _plain(case.name)})
        if case.outcome != "passed":
            ET.SubElement(shown, case.outcome, {"message": _plain(case.message)})
        elif case.message:
            ET.SubElement(shown, "system-out").text = _plain(case.message)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _plain(text: str) -> str:
    """A text with nothing in it that XML cannot hold."""
    return _NO_XML.sub("?", plain_text(text))
