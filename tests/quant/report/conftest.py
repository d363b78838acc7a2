import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from quant import run
from quant.evaluation.accuracy import Evaluation
from quant.settings.calib_toml import settings_from_options
from tests.chromium import chromium_page
from tests.once import made_once

CLASSES = (
    "0 <script>window.hit=1<",
    "1 \"q\" 'x' & a|b",
    "2 日本語 العربية",
    "3 two\nlines",
    "4 $x_1$ {y}",
    "5" + "long" * 20,
)


@pytest.fixture(autouse=True)
def charts():
    """Reports have their charts here."""


@pytest.fixture(scope="session")
def evaluation():
    """An evaluation out of labels, answers, confidences and margins; images are called a.png, b.png and so on."""

    def make(labels, predicted, confidence=None, margin=None):
        count = len(predicted)
        column = lambda values, default: np.array(values if values is not None else [default] * count, np.float32)  # noqa: E731
        return Evaluation(
            images=count,
            labels=None if labels is None else np.array(labels),
            predicted=np.array(predicted),
            in_top5=None,
            confidence=column(confidence, 0.5),
            margin=column(margin, 1.0),
            cosine=1.0,
            sqnr_db=30.0,
            names=tuple(f"{chr(97 + i)}.png" for i in range(count)),
        )

    return make


@pytest.fixture(scope="session")
def hostile_classes():
    """Names of the first classes of `made`."""
    return CLASSES


@pytest.fixture(scope="session")
def made(demo_master, tmp_path_factory):
    """A folder with the reports of a real run whose files and classes have hostile names, and which loses accuracy."""

    def make(folder):
        shutil.copytree(demo_master, folder)
        for i, name in enumerate(CLASSES):
            (folder / "imgs" / str(i)).rename(folder / "imgs" / name)
        for image in list((folder / "imgs" / CLASSES[0]).iterdir()):
            image.rename(image.with_name(f"<img src=x onerror=hit=1>'\" é\n{image.name}"))
        (folder / "imgs" / "9" / "broken <i>.png").write_bytes(b"no image")
        (folder / "model.onnx").rename(folder / "mo<b>del\" 'x'.onnx")
        options = {
            "model": folder / "mo<b>del\" 'x'.onnx", "algo": "percentile", "percentile": 80.0, "num_images": 64,
            "recover": "off",
        }  # fmt: skip
        settings = settings_from_options(options, folder)
        run(replace(settings, out=folder / "out"))

    return made_once(tmp_path_factory, "a <b>pr&amp;", make, charts=True) / "out"


@pytest.fixture(scope="session")
def page(made, tmp_path_factory):
    with chromium_page(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture(scope="session")
def found(made):
    return json.loads((made / "report.json").read_text(encoding="utf-8"))
