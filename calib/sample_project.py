"""The embedded sample as a project on disk."""

from __future__ import annotations

import io
import shutil
import zipfile
from importlib import resources
from pathlib import Path

from calib.errors import OutputError

_CONFIG = """\
# Settings for `calib run` in this folder; options on the command line override them.
model = "model.onnx"
data = "imgs"
preprocess = "preprocess.toml"
"""
_PREPROCESS = """\
# 8x8 grey digits with pixels in 0..1, as the network was trained.
preset = "unit"
color = "grey"
"""


def write_sample_project(folder: Path) -> int:
    """Write the model, images and settings to a new or empty folder, and return the number of images.

    Raises:
        CalibrationError: The folder is not empty, or cannot be written to.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: expected a new or empty folder, found files in it; choose another folder")
    sample = resources.files("calib") / "sample"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(io.BytesIO((sample / "digits.zip").read_bytes())) as archive:
            archive.extractall(folder / "imgs")
            images = len(archive.namelist())
        (folder / "model.onnx").write_bytes((sample / "model.onnx").read_bytes())
        (folder / "preprocess.toml").write_text(_PREPROCESS, encoding="utf-8")
        (folder / "calib.toml").write_text(_CONFIG, encoding="utf-8")
    except BaseException as error:
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise OutputError(f"{folder}: could not be written: {error.strerror or error}") from error
        raise
    return images
