import numpy as np
import pytest

from datasets import DatasetError, open_source
from datasets.boxes.box_labels import BoxedImages


@pytest.fixture
def dataset(tmp_path, pictures, texts):
    pictures(tmp_path / "ds/images/train", ["a.png", "b.png"])
    pictures(tmp_path / "ds/images/val", ["c.png", "d.png"])
    texts(tmp_path / "ds/labels/train", a="1 0.5 0.5 0.25 0.5")
    texts(tmp_path / "ds/labels/val", c="0 0.5 0.5 0.25 0.5")
    return tmp_path / "ds"


_ALIASES = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 31))


def yaml(dataset, text):
    (dataset / "data.yaml").write_text(text)
    return dataset / "data.yaml"


@pytest.mark.parametrize(
    "text",
    [
        "path: .\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}",
        "train: images/train\nval: images/val\nnc: 2\nnames: [cat, dog]",
        "path: /home/somebody/ds\ntrain: images/train\nval: images/val\nnames:\n  - cat\n  - dog",
        "path: ../ds\ntrain: [images/train]\nval: ../images/val\nnames: [cat, dog]",
    ],
)
def test_splits_boxes_and_names(dataset, text):
    train, val = (open_source(yaml(dataset, text), split=split) for split in ("train", "val"))
    assert (train.names, val.names) == (("a.png", "b.png"), ("c.png", "d.png"))
    assert train.class_names == val.class_names == ("cat", "dog")
    assert train.boxes(0, 40, 80).classes.tolist() == [1]
    np.testing.assert_allclose(val.boxes(0, 20, 30).boxes, [[11.25, 5, 18.75, 15]])


def test_several_folders_and_lists_of_images(dataset):
    (dataset / "lists").mkdir()
    (dataset / "lists/some.txt").write_text("../images/train/b.png\n../images/val/c.png\n")
    text = "train: lists/some.txt\nval: [images/train, images/val]\nnames: [cat, dog]"
    listed, both = (open_source(yaml(dataset, text), split=split) for split in ("train", "val"))
    assert listed.names == ("train/b.png", "val/c.png")
    assert [len(listed.boxes(i, 20, 30)) for i in range(2)] == [0, 1]
    assert both.names == ("train/a.png", "train/b.png", "val/c.png", "val/d.png")
    assert both.path == dataset / "images"


def test_a_split_that_is_missing_is_replaced_and_images_without_labels_are_unlabelled(dataset, pictures):
    pictures(dataset / "bare", ["a.png"])
    source = open_source(yaml(dataset, "train: bare\nnames: [cat]"), split="val")
    assert source.names == ("a.png",)
    assert not isinstance(source, BoxedImages)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        (f"train: {'[' * 20_000}", "cannot be read as YAML"),
        (f"train: {'1' * 5000}", "cannot be read as YAML"),
        ("train: 2001-99-99", "cannot be read as YAML"),
        (f"train: {'a' * 5000}", "train: expected a folder or a .txt of images, found nothing"),
        (f"{_ALIASES}train: images/train\nnames: *a30", "names: expected a list of class names"),
        ("names: [cat]", "expected the keys 'train' or 'val'"),
        ("train: nowhere\nnames: [cat]", "train: expected a folder or a .txt of images, found nothing at .*nowhere"),
        ("train: 5\nnames: [cat]", "train: expected a folder"),
        ("train: images/train\nnames: {1: cat}", "names: expected a list of class names"),
        ("train: images/train\nnames: [cat]", r"a\.txt:1: expected a class of 0..0, as there are 1 names, found 1"),
        (
            "train: list.txt\nnames: [cat, dog]",
            "list.txt: expected the path of an image on each line, found no image at",
        ),
    ],
)
def test_what_is_wrong_is_said(dataset, text, message):
    (dataset / "list.txt").write_text("images/train/z.png\n")
    with pytest.raises(DatasetError, match=message):
        open_source(yaml(dataset, text))


def test_names_hold_no_code(dataset):
    yaml(dataset, f"train: !!python/object/apply:os.mkdir ['{dataset / 'made'}']\nnames: [cat]")
    with pytest.raises(DatasetError, match="not valid YAML"):
        open_source(dataset / "data.yaml")
    assert not (dataset / "made").exists()
