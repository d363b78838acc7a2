"""The docs as a site: it builds without a warning, loads nothing from elsewhere, and has what it promises."""

import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from calib.cli import command_line
from scripts.make_gallery import ENTRIES

ROOT = Path(__file__).resolve().parents[2]
BUILDERS = ("mkdocs", "material", "mkdocstrings_handlers")


@pytest.fixture(scope="module")
def needs_docs():
    for module in BUILDERS:
        pytest.importorskip(module, reason="the site needs pip install '.[docs]'")


@pytest.fixture(scope="module")
def site(needs_docs, tmp_path_factory):
    """The folder of the built site; a warning is an error."""
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        folder,
    ]  # with --quiet, no warning is counted
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_has_every_guide_and_every_public_name_and_needs_no_network(site):
    pages = {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= pages.keys()
    for package in ("calib", "quant", "datasets"):
        page = pages[f"reference/{package}.html"]
        names = [
            name for name in importlib.import_module(package).__all__ if name not in ("__version__", "DISTRIBUTION")
        ]
        assert [name for name in names if f'id="{package}.{name}"' not in page] == []
    loading = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//", re.IGNORECASE)
    remote = {name for name, page in pages.items() if loading.search(page) or "fonts.g" in page}
    assert remote == set()
    assert [name for name, page in pages.items() if 'class="mermaid"' in page] == []  # which the theme loads from a CDN
    assert "calib run --data imgs/ --algo entropy" in re.sub("<[^>]*>", "", pages["index.html"])


def test_every_guide_has_a_place_in_the_site():
    """Without what builds it."""
    named = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= set(named)


def test_the_gallery_shows_each_report_with_its_command(needs_docs, tmp_path, monkeypatch):
    import docs_site

    monkeypatch.setattr(docs_site, "GALLERY", tmp_path)
    assert "make_gallery.py" in docs_site.gallery_page()
    row = {"title": "A net", "file": "net.html", "command": "calib run --data imgs/", "headline": "INT8 loses nothing."}
    (tmp_path / "gallery.json").write_text(json.dumps([row]))
    (tmp_path / "net.html").write_text("<p>report</p>")
    page = docs_site.gallery_page()
    assert "## [A net](net.html)" in page
    assert "`calib run --data imgs/`" in page
    assert "INT8 loses nothing." in page
    assert [path.name for path in docs_site.reports()] == ["net.html"]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_commands_of_the_gallery_are_commands(entry):
    for line in entry.commands:
        name, *arguments = shlex.split(line)[1:]
        command = command_line.get_command(click.Context(command_line), name)
        assert command.make_context(name, arguments).command is command
