"""What sub-folders are: splits, images beside masks and labels, or classes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import DatasetError, ImageFolder, open_source
from datasets.images.layout import layout_from_names
from datasets.opening import has_validation


@pytest.fixture
def save(tmp_path, save_image):
    def write(*names):
        for name in names:
            save_image(tmp_path / "ds" / name, size=(2, 2))
        return tmp_path / "ds"

    return write


# The images that are there; those that are kept with their classes, or all; the splits.
LAYOUTS = {
    "train and val above classes": (
        "train/cat/1.png train/dog/1.png val/cat/1.png",
        "train/cat/1.png:cat train/dog/1.png:dog val/cat/1.png:cat",
        "train val",
    ),
    "years of COCO": ("train2017/1.png val2017/2.png", "train2017/1.png: val2017/2.png:", "train val"),
    "other words": ("Validation/a/1.png training/a/1.png", "Validation/a/1.png:a training/a/1.png:a", "train val"),
    "Kaggle's": (
        "test_set/test_set/cats/1.png training_set/training_set/cats/1.png",
        "test_set/test_set/cats/1.png:cats training_set/training_set/cats/1.png:cats",
        "train test",
    ),
    "one split alone": ("train/cat/1.png train/dog/1.png", "train/cat/1.png:cat train/dog/1.png:dog", "train"),
    "images beside masks": ("images/1.png masks/1.png", "images/1.png:", ""),
    "VOC": ("JPEGImages/1.jpg SegmentationClass/1.png SegmentationObject/1.png", "JPEGImages/1.jpg:", ""),
    "Cityscapes": (
        "gtFine/train/ulm/1.png leftImg8bit/train/ulm/1.png leftImg8bit/val/bonn/1.png",
        "leftImg8bit/train/ulm/1.png:ulm leftImg8bit/val/bonn/1.png:bonn",
        "train val",
    ),
    "Roboflow": (
        "train/images/1.png train/masks/1.png valid/images/1.png valid/masks/1.png",
        "train/images/1.png: valid/images/1.png:",
        "train val",
    ),
    "pictures of any name beside masks": ("masks/1.png scans/1.png", "scans/1.png:", ""),
    "splits beside masks": ("annotations/1.png train/1.png val/1.png", "train/1.png: val/1.png:", "train val"),
    "images alone": ("images/cat/1.png images/dog/1.png", "images/cat/1.png:cat images/dog/1.png:dog", ""),
    "classes": ("cat/1.png dog/1.png", "cat/1.png:cat dog/1.png:dog", ""),
    "classes, one of them masks": (
        "cat/1.png dog/1.png masks/1.png",
        "cat/1.png:cat dog/1.png:dog masks/1.png:masks",
        "",
    ),
    "a class called train": ("bus/1.png train/1.png", "bus/1.png:bus train/1.png:train", ""),
    "flat": ("1.png 2.png", "1.png: 2.png:", ""),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_sub_folders_are_what_people_mean(case):
    names, expected, splits = (text.split() for text in LAYOUTS[case])
    layout = layout_from_names(names)
    found = [f"{name}:{label or ''}" for name, label in zip(layout.names, layout.classes, strict=True)]
    assert found == expected
    assert list(layout.present) == splits


def test_split_names_are_classes_where_the_classes_say_so():
    layout = layout_from_names(["test/1.png", "train/1.png"], ["train", "test", "bus"])
    assert layout.classes == ("test", "train")
    assert layout.present == ()


FOLDERS = st.sampled_from(["train", "val", "test", "images", "masks", "labels", "cat", "dog", "photos"])
PATHS = st.lists(st.tuples(st.lists(FOLDERS, max_size=4), st.integers(0, 3)), min_size=1, max_size=20, unique_by=str)


@given(PATHS)
def test_every_image_is_kept_or_counted(paths):
    names = sorted({"/".join([*folders, f"{i}.png"]) for folders, i in paths})
    layout = layout_from_names(names)
    assert set(layout.names) <= set(names)
    assert list(layout.names) == sorted(layout.names)
    assert len(layout.names) + sum(layout.left_out.values()) == len(names)
    parts = [layout.of_split(split) for split in layout.present]
    if parts:  # splits take all images apart
        assert Counter(name for part in parts for name in part.names) == Counter(layout.names)
        assert all(
            len(part.names) + sum(part.left_out.values()) == len(names) and set(part.splits) == {split}
            for part, split in zip(parts, layout.present, strict=True)
        )


def test_splits_are_opened_apart_and_share_their_classes(save):
    root = save("train/cat/1.png", "train/dog/1.png", "train/emu/1.png", "val/dog/2.png", "val/emu/2.png")
    train, val = open_source(root), open_source(root, split="val")
    assert train.names == ("train/cat/1.png", "train/dog/1.png", "train/emu/1.png")
    assert val.names == ("val/dog/2.png", "val/emu/2.png")
    assert train.class_names == val.class_names == ("cat", "dog", "emu")
    assert val.labels.tolist() == [1, 2]
    assert has_validation(root)
    assert not has_validation(root / "train")
    assert open_source(root / "val").labels.tolist() == [0, 1]


def test_what_is_read_is_said_with_counts_and_so_is_what_is_not(save, tmp_path):
    root = save("images/1.png", "images/2.png", "masks/1.png")
    for name in ("a.gif", "b.GIF", "c.heic"):
        (root / name).write_bytes(b"x")
    assert open_source(root).notes == (
        f"{root}: 2 images in 1 folder (images 2); not read: 1 images of masks/, 2 .gif, 1 .heic",
    )
    assert open_source(root).labels is None
    many = save(*(f"class{i}/1.png" for i in range(6)))
    assert "8 images" not in ImageFolder(many).notes[0]


def test_a_validation_split_may_be_called_test(save):
    root = save("train/a/1.png", "test/a/2.png")
    assert open_source(root, split="val").names == ("test/a/2.png",)
    assert has_validation(root)


def test_labels_of_a_table_reach_below_images(save, tmp_path):
    root = save("images/1.png", "images/2.png", "masks/1.png")
    (tmp_path / "l.csv").write_text("1.png,cat\n2.png,dog\n")
    assert ImageFolder(root, labels=tmp_path / "l.csv").labels.tolist() == [0, 1]


def test_videos_say_how_to_make_images(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a b.MP4").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"found 1 \.mp4; make images of a video first, such as with: mkdir"):
        open_source(tmp_path / "clips")
    video = tmp_path / "clips/a b.MP4"
    expected = (
        f"{video}: a video is not read; make images of a video first, such as with: "
        f"mkdir -p frames && ffmpeg -i '{video}' -vf fps=2 frames/%06d.png; then give the folder"
    )
    for refused in (
        lambda: open_source(video),
        lambda: ImageFolder(video),
        lambda: ImageFolder(video.parent, names=["a b.MP4"]),
    ):
        with pytest.raises(DatasetError) as caught:
            refused()
        assert str(caught.value) == expected
