import numpy as np
import pytest

from datasets import DatasetError, ImageFolder, open_source
from datasets.boxes.box_labels import BoxedImages


def test_text_files_beside_the_images_folder_are_found(tmp_path, pictures, texts):
    pictures(tmp_path / "ds/images/train")
    texts(tmp_path / "ds/labels/train", a="1 0.5 0.5 0.25 0.5\n\n0 0.25 0.5 0.5 1\n", b="", d="2 0.5 0.5 1 1\n")
    source = open_source(tmp_path / "ds/images/train")
    assert isinstance(source, BoxedImages)
    assert source.names == ("a.png", "b.png", "c.png", "d.png")
    found = source.boxes(0, 40, 80)
    np.testing.assert_allclose(found.boxes, [[30, 10, 50, 30], [0, 0, 40, 40]])
    assert (found.classes.tolist(), found.areas.tolist()) == ([1, 0], [400, 1600])
    assert [len(source.boxes(i, 20, 20)) for i in range(4)] == [2, 0, 0, 1]
    assert "3 boxes of 3 classes in 4 images" in source.text
    assert "1 images have no file and count as empty" in source.text


@pytest.mark.parametrize("root", ["ds", "ds/images"])
def test_the_root_of_a_dataset_has_them_too(tmp_path, pictures, texts, root):
    pictures(tmp_path / "ds/images/train", ["a.png"])
    pictures(tmp_path / "ds/images/val", ["b.png"])
    texts(tmp_path / "ds/labels/train", a="0 0.5 0.5 0.25 0.5")
    texts(tmp_path / "ds/labels/val", b="0 0.5 0.5 0.25 0.5\n1 0.5 0.5 0.2 0.2")
    for split, boxes in (("train", 1), ("val", 2)):
        source = open_source(tmp_path / root, split=split)
        assert [len(source.boxes(i, 40, 40)) for i in range(len(source))] == [boxes]
        assert source.labels is None  # train and val are no classes
        assert source.notes[0].startswith(f"{tmp_path / root}: 1 images in 1 folder (")


def test_text_files_in_a_folder_that_is_named(tmp_path, pictures, texts):
    pictures(tmp_path / "photos")
    texts(tmp_path / "boxes", a="0 0.5 0.5 0.25 0.5", classes="cat\ndog\n")
    source = open_source(tmp_path / "photos", labels=tmp_path / "boxes")
    assert source.class_names == ("cat", "dog")
    assert len(source.boxes(0, 40, 80)) == 1
    texts(tmp_path / "others", z="0 0.5 0.5 0.25 0.5")
    with pytest.raises(DatasetError, match=r"others: expected a text file for each image .* such as 'a\.txt'"):
        open_source(tmp_path / "photos", labels=tmp_path / "others")


def test_captions_beside_images_are_no_boxes(tmp_path, pictures, texts):
    pictures(tmp_path / "photos")
    texts(tmp_path / "photos", a="a cat on a mat", b="2 dogs")
    assert not isinstance(open_source(tmp_path / "photos"), BoxedImages)
    with pytest.raises(DatasetError, match=r"a\.txt:1: expected 'class x y width height'"):
        open_source(tmp_path / "photos", task="detect")


def test_boxes_beside_images(tmp_path, pictures, texts):
    pictures(tmp_path / "photos")
    texts(tmp_path / "photos", a="0 0.5 0.5 0.25 0.5")
    assert isinstance(open_source(tmp_path / "photos"), BoxedImages)


def test_an_outline_gives_its_box(tmp_path, pictures, texts):
    pictures(tmp_path / "images")
    texts(tmp_path / "labels", b="3 0.1 0.2 0.5 0.1 0.4 0.6")
    source = open_source(tmp_path / "images")
    np.testing.assert_allclose(source.boxes(1, 50, 50).boxes, [[5, 5, 25, 30]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.25", "expected 'class x y width height'"),
        ("0 0.5 0.5 0.25 0.5 0.9", "expected 'class x y width height'"),
        ("cat 0.5 0.5 0.25 0.5", "found 'cat 0.5"),
        ("inf 0.5 0.5 0.25 0.5", "expected 'class x y width height'"),
        ("1e300 0.5 0.5 0.25 0.5", "expected 'class x y width height'"),
        ("-1 0.5 0.5 0.25 0.5", "expected 'class x y width height'"),
        ("0.5 0.5 0.5 0.25 0.5", "expected 'class x y width height'"),
        ("0 0.5 nan 0.25 0.5", "expected 'class x y width height'"),
        ("0 120 64 30 20", "expected fractions of the image from 0 to 1, found 120"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, pictures, texts, text, message):
    pictures(tmp_path / "images")
    texts(tmp_path / "labels", a="0 0.5 0.5 0.25 0.5\n" + text)
    with pytest.raises(DatasetError, match=rf"a\.txt:2: .*{message}"):
        open_source(tmp_path / "images", labels=tmp_path / "labels")


def test_tasks_decide_what_folders_say(tmp_path, pictures, texts):
    pictures(tmp_path / "ds/cat", ["a.png"])
    pictures(tmp_path / "ds/dog", ["b.png"])
    assert open_source(tmp_path / "ds").labels.tolist() == [0, 1]
    assert open_source(tmp_path / "ds", task="classify").labels.tolist() == [0, 1]
    for task in ("none", "detect", "segment", "embed"):
        source = open_source(tmp_path / "ds", task=task)
        assert (source.labels, source.class_names) == (None, None)
        assert isinstance(source, ImageFolder)
