"""Folders of images that are opened with their masks."""

import numpy as np
import pytest
from PIL import Image

from datasets import ImageFolder, open_source
from datasets.errors import DatasetError
from datasets.masks.masked_images import MaskedImages


@pytest.fixture
def masked(tmp_path):
    """images/ and masks/, of which one image has none."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for i in range(4):
        Image.new("RGB", (8, 6), (60 * i, 0, 0)).save(tmp_path / f"images/{i}.png")
        if i:
            Image.fromarray(np.full((6, 8), i, np.uint8)).save(tmp_path / f"masks/{i}.png")
    return tmp_path


@pytest.mark.parametrize("folder", ["", "images"])
def test_masks_are_found_and_are_no_images(masked, folder):
    source = open_source(masked / folder)
    assert isinstance(source, MaskedImages)
    assert [name.removeprefix("images/") for name in source.names] == ["1.png", "2.png", "3.png"]
    assert (source.labels, source.class_names, source.values) == (None, None, (1, 2, 3))
    np.testing.assert_array_equal(source.mask(1), np.full((6, 8), 2))
    assert "masks: 3 files such as " in source.text and "with the numbers 1 to 3; 1 images of" in source.text


def test_masks_that_are_given(masked, tmp_path):
    (masked / "masks").rename(tmp_path / "elsewhere")
    assert not isinstance(open_source(masked / "images"), MaskedImages)
    for task in ("auto", "segment"):
        source = open_source(masked / "images", labels=tmp_path / "elsewhere", task=task)
        assert isinstance(source, MaskedImages) and len(source) == 3


def test_masks_that_are_asked_for_and_not_there(masked, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"expected a mask for each image of .*, found none such as '0\.png'"):
        open_source(masked / "images", labels=tmp_path / "empty", task="segment")
    with pytest.raises(DatasetError, match=r"expected a folder of masks, .* found a file"):
        open_source(masked / "images", labels=masked / "masks/1.png", task="segment")


@pytest.mark.parametrize("task", ["none", "classify", "embed"])
def test_another_task_has_no_masks(masked, task):
    source = open_source(masked / "images", task=task)
    assert type(source) is ImageFolder and len(source) == 4


def test_names_of_classes(masked):
    assert open_source(masked, classes=["a", "b", "c", "d"]).class_names == ("a", "b", "c", "d")
