"""Make docs/report-head.png: the head of the sample's report in headless Chromium, light, 1280 pixels wide.

    python scripts/readme_picture.py [NEW_FOLDER]

Needs Chromium. The project and its report stay in NEW_FOLDER, a temporary one by default.
"""

import io
import os
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from calib.sample_project import write_sample_project  # noqa: E402
from quant import run  # noqa: E402
from quant.settings.calib_toml import settings_from_options  # noqa: E402
from tests.chromium import chromium_page  # noqa: E402

PICTURE = ROOT / "docs" / "report-head.png"
WIDTH, COLOURS = 1280, 256


def head_picture(page, report):
    """The report from the top to the end of the table of builds."""
    page.look(WIDTH)
    page.open(report)
    bottom = page.evaluate("document.querySelector('#builds').getBoundingClientRect().bottom")
    picture = Image.open(io.BytesIO(page.picture()))
    return picture.convert("RGB").crop((0, 0, WIDTH, round(bottom) + 16))


def main(folder):
    project = folder / "digits"
    write_sample_project(project)
    os.chdir(project)  # the report shows paths as they were given
    run(settings_from_options({"algo": "entropy"}))
    with chromium_page(folder) as page:
        picture = head_picture(page, project / "calib-out" / "report.html")
    picture.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else scratch).resolve())
