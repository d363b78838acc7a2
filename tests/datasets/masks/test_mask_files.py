"""Where masks are looked for: the habits of the usual data sets."""

from pathlib import Path

import pytest

from datasets.masks.mask_files import mask_files, without_masks


def found(root, folder, names, masks=None):
    files = mask_files(root / folder, names, None if masks is None else root / masks)
    return [None if file is None else file.relative_to(root).as_posix() for file in files]


@pytest.fixture
def touch(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("folder", "name", "mask"),
    [
        ("images", "a.jpg", "masks/a.png"),
        ("", "images/a.jpg", "masks/a.png"),
        ("images/val", "a.jpg", "annotations/val/a.png"),
        ("train", "images/a.jpeg", "train/labels/a.tif"),
        ("imgs", "a.png", "masks/a_mask.png"),
        ("VOC2012/JPEGImages", "2007_000032.jpg", "VOC2012/SegmentationClass/2007_000032.png"),
        (
            "leftImg8bit/val",
            "ulm/ulm_000000_000019_leftImg8bit.png",
            "gtFine/val/ulm/ulm_000000_000019_gtFine_labelTrainIds.png",
        ),
        ("cs/leftImg8bit", "x_leftImg8bit.png", "cs/gtFine/x_gtFine_labelIds.png"),
        ("flat", "a.jpg", "flat/a_mask.png"),
    ],
)
def test_the_mask_of_an_image(touch, folder, name, mask):
    root = touch(f"{folder}/{name}", mask)
    assert found(root, folder, [name]) == [mask]


def test_cityscapes_training_numbers_come_before_all_numbers(touch):
    root = touch("gtFine/a_gtFine_labelIds.png", "gtFine/a_gtFine_labelTrainIds.png")
    assert found(root, "leftImg8bit", ["a_leftImg8bit.png"]) == ["gtFine/a_gtFine_labelTrainIds.png"]


@pytest.mark.parametrize("mask", ["given/sub/a.png", "given/a.png"])
def test_a_folder_of_masks_that_is_given(touch, mask):
    root = touch("photos/sub/a.jpg", mask)
    assert found(root, "photos", ["sub/a.jpg"], "given") == [mask]


def test_images_without_a_mask_have_none(touch):
    root = touch("masks/b.png")
    assert found(root, "images", ["a.jpg", "b.jpg", "c.jpg"]) == [None, "masks/b.png", None]


@pytest.mark.parametrize("other", ["images/a.png", "images/a.bmp", "masks/a.jpg", "masks/a.txt"])
def test_what_is_no_mask(touch, other):
    """The same picture in another format is none, nor is a JPEG, which changes numbers."""
    root = touch("images/a.jpg", other)
    assert found(root, "images", ["a.jpg"]) == [None]


def test_masks_are_no_images():
    names = ["images/a.jpg", "masks/a.png", "b.jpg", "b_mask.png", "lone_mask.png"]
    assert without_masks(names) == ("images/a.jpg", "b.jpg", "lone_mask.png")


def test_a_class_that_is_called_mask_is_left_alone(touch):
    """People with and without a mask on their faces, as classes."""
    root = touch("images/mask/a.jpg", "images/no_mask/b.jpg")
    assert found(root, "images", ["mask/a.jpg", "no_mask/b.jpg"]) == [None, None]
    assert Path(root).is_dir()


def test_a_link_to_itself_hides_no_masks(touch, tmp_path):
    root = touch("images/a.jpg", "masks/a.png")
    (root / "masks" / "b.png").symlink_to("b.png")
    assert mask_files(root / "images", ["a.jpg", "b.jpg"]) == [root / "masks" / "a.png", None]
