import json

import numpy as np
import pytest
from PIL import Image

IMAGES = {"a.png": (40, 80), "b.png": (50, 50), "c.png": (20, 30), "d.png": (20, 20)}  # height and width


@pytest.fixture
def pictures():
    """Writes the images into a folder."""

    def write(folder, names=tuple(IMAGES)):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            Image.fromarray(np.zeros((*IMAGES[name], 3), np.uint8)).save(folder / name)
        return folder

    return write


@pytest.fixture
def coco():
    """A COCO file of three of the images; its ids have gaps, as COCO's own have."""

    def write(path, prefix="", **changes):
        document = {
            "images": [{"id": 7, "file_name": f"{prefix}a.png"}, {"id": 3, "file_name": f"{prefix}b.png"},
                       {"id": 9, "file_name": f"{prefix}c.png"}],
            "categories": [{"id": 44, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 90, "name": "owl"}],
            "annotations": [
                {"id": 1, "image_id": 7, "category_id": 44, "bbox": [10, 5, 20, 30], "area": 321.5, "iscrowd": 0},
                {"id": 2, "image_id": 3, "category_id": 3, "bbox": [0.5, 1.5, 4, 8]},
                {"id": 3, "image_id": 7, "category_id": 90, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 1},
            ],
        } | changes  # fmt: skip
        path.write_text(json.dumps(document))
        return path

    return write


@pytest.fixture
def texts():
    """Writes YOLO's text files by image stem."""

    def write(folder, **lines):
        folder.mkdir(parents=True, exist_ok=True)
        for stem, text in lines.items():
            (folder / f"{stem}.txt").write_text(text)
        return folder

    return write
