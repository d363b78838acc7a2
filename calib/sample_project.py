"""The embedded samples as projects on disk."""

from __future__ import annotations

import io
import shutil
import zipfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from calib.errors import OutputError

_CONFIG = """\
# Settings for `calib run` in this folder; options on the command line override them.
model = "model.onnx"
data = "imgs"
preprocess = "preprocess.toml"
"""
_DETECTION = """\
# Settings for `calib run` in this folder; options on the command line override them.
model = "model.onnx"
data = "imgs"
labels = "labels"
preprocess = "preprocess.toml"
num_images = 96
"""
_LETTERBOX = """\
# 96x72 grey scenes with pixels in 0..1, letterboxed to 96x96, as the detector was trained.
preset = "yolo"
color = "grey"
"""
_PREPROCESS = """\
# 8x8 grey digits with pixels in 0..1, as the network was trained.
preset = "unit"
color = "grey"
"""


@dataclass(frozen=True)
class _Sample:
    """One of the embedded projects: where its files are and what is written beside them."""

    folder: str
    archive: str
    into: str
    config: str
    preprocess: str


_SAMPLES = {
    "classify": _Sample("", "digits.zip", "imgs", _CONFIG, _PREPROCESS),
    "detect": _Sample("detection", "scenes.zip", "", _DETECTION, _LETTERBOX),
}


def write_sample_project(folder: Path, task: str = "classify") -> int:
    """Write the model, images and settings to a new or empty folder, and return the number of images.

    Args:
        folder: Where to.
        task: classify, for single digits; detect, for scenes of digits with boxes.

    Raises:
        CalibrationError: The folder is not empty, or cannot be written to.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: expected a new or empty folder, found files in it; choose another folder")
    sample = _SAMPLES[task]
    files = resources.files("calib") / "sample" / sample.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(io.BytesIO((files / sample.archive).read_bytes())) as archive:
            archive.extractall(folder / sample.into)
            images = sum(not name.endswith(".txt") for name in archive.namelist())
        (folder / "model.onnx").write_bytes((files / "model.onnx").read_bytes())
        (folder / "preprocess.toml").write_text(sample.preprocess, encoding="utf-8")
        (folder / "calib.toml").write_text(sample.config, encoding="utf-8")
    except BaseException as error:
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise OutputError(f"{folder}: could not be written: {error.strerror or error}") from error
        raise
    return images
