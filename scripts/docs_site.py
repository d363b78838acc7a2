"""What the site has beside the guides: the README as its first page, the API reference, the gallery of reports.

mkdocs.yml names this file as a hook. The reference has an entry for each public name of the packages. The gallery shows
the reports that `scripts/make_gallery.py` has left in build/gallery; without them its page says how to make them.
"""

import json
import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
GALLERY = ROOT / "build" / "gallery"
PACKAGES = {
    "calib": "Statistics, algorithms and caches: from activations to scales.",
    "quant": "Models, builds, comparison and the report.",
    "datasets": "Files in, batches out.",
}
NO_ENTRY = ("__version__", "DISTRIBUTION")  # plain values
NO_GALLERY = (
    "No report has been made here. `python scripts/make_gallery.py` makes them from the samples, in some minutes."
)


def on_files(files, config):
    """Add the pages that are made."""
    made = {"index.md": first_page(), "gallery/index.md": gallery_page()}
    made |= {f"reference/{package}.md": reference_page(package) for package in PACKAGES}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    for report in reports():
        files.append(File.generated(config, f"gallery/{report.name}", abs_src_path=str(report)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead to the first page where a guide leads to the README."""
    return markdown.replace("](../README.md", "](index.md")


def first_page():
    """The README, with links as they are from the site's top."""
    return re.sub(r"\]\(docs/", "](", (ROOT / "README.md").read_text(encoding="utf-8"))


def reference_page(package):
    """An entry for each public name of a package."""
    sys.path.insert(0, str(ROOT))
    names = __import__(package).__all__
    entries = [f"::: {package}.{name}" for name in names if name not in NO_ENTRY]
    return "\n\n".join([f"# {package}", PACKAGES[package], *entries]) + "\n"


def reports():
    """The reports of the gallery."""
    return sorted(GALLERY.glob("*.html")) if GALLERY.is_dir() else []


def gallery_page():
    """A line for each report: its title, what was run, and what came out."""
    lines = ["# Gallery", "", "Reports as the toolkit writes them, made from its own samples.", ""]
    shown = json.loads((GALLERY / "gallery.json").read_text(encoding="utf-8")) if reports() else []
    if not shown:
        return "\n".join([*lines, NO_GALLERY, ""])
    for entry in shown:
        lines += [f"## [{entry['title']}]({entry['file']})", "", f"`{entry['command']}`", "", entry["headline"], ""]
    return "\n".join(lines)
