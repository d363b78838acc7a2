import json

import numpy as np
import pytest

from datasets import DatasetError, open_source


def test_boxes_classes_areas_and_crowds(tmp_path, pictures, coco):
    source = open_source(pictures(tmp_path / "imgs"), labels=coco(tmp_path / "instances.json"))
    assert source.names == ("a.png", "b.png", "c.png")  # d.png is not listed: nobody looked at it
    assert source.class_names == ("cat", "dog", "owl")  # in the order of the ids 3, 44, 90
    assert source.labels is None
    first = source.boxes(0, 40, 80)
    np.testing.assert_array_equal(first.boxes, [[10, 5, 30, 35], [1, 2, 4, 6]])
    assert (first.classes.tolist(), first.crowd.tolist(), first.areas.tolist()) == ([1, 2], [False, True], [321.5, 12])
    second = source.boxes(1, 50, 50)
    np.testing.assert_array_equal(second.boxes, [[0.5, 1.5, 4.5, 9.5]])
    assert second.areas.tolist() == [32]  # without an area of its own, that of the box
    assert len(source.boxes(2, 20, 30)) == 0
    assert "3 boxes of 3 classes in 3 images" in source.text
    assert "1 images of" in source.text and "are left out" in source.text


def test_file_names_are_found_by_their_last_part(tmp_path, pictures, coco):
    folder = pictures(tmp_path / "val2017")
    labels = coco(tmp_path / "instances.json", prefix="http/val/")
    assert open_source(folder, labels=labels).names == ("a.png", "b.png", "c.png")


def test_classes_in_the_models_order(tmp_path, pictures, coco):
    classes = ["owl", "bird", "cat", "dog"]
    source = open_source(pictures(tmp_path / "i"), labels=coco(tmp_path / "l.json"), classes=classes)
    assert source.boxes(0, 40, 80).classes.tolist() == [3, 0]
    with pytest.raises(DatasetError, match="class 'owl' is not one of the 2 classes given"):
        open_source(tmp_path / "i", labels=tmp_path / "l.json", classes=["cat", "dog"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [{"id": 1, "file_name": "other.png"}]}, r"lists 1 images, none of them in .*first 'other.png'"),
        ({"images": [{"id": 1, "file_name": "a.png"}] * 2}, r"images\[1\]: 'a.png' is listed twice"),
        ({"images": [{"id": 1}]}, r"images\[0\].file_name: expected text, found None"),
        ({"annotations": {}}, "expected COCO JSON with lists .* no list 'annotations'"),
        ({"categories": [{"id": "x"}]}, r"categories\[0\].id: expected a whole number, found 'x'"),
        (
            {"annotations": [{"id": 5, "image_id": 7, "category_id": 44, "bbox": [1, 2, 3]}]},
            "annotation 5: expected a bbox of 4 numbers",
        ),
        (
            {"annotations": [{"id": 5, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}]},
            "annotation 5: expected a category_id of 'categories', found 1",
        ),
        (
            {"annotations": [{"id": 5, "image_id": 7, "category_id": [44], "bbox": [1, 2, 3, 4]}]},
            "annotation 5: expected a category_id of 'categories'",
        ),
        (
            {"annotations": [{"id": 5, "image_id": 7, "category_id": 44, "bbox": [10**400, 2, 3, 4]}]},
            "annotation 5: expected a bbox of 4 numbers",
        ),
        ({"images": [{"id": [1], "file_name": "a.png"}]}, r"images\[0\].id: expected a number"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, pictures, coco, changes, message):
    labels = coco(tmp_path / "l.json", **changes)
    with pytest.raises(DatasetError, match=message):
        open_source(pictures(tmp_path / "i"), labels=labels)


@pytest.mark.parametrize("text", ["{", "[" * 200_000, "1" * 5000, json.dumps([1]), json.dumps("images")])
def test_other_json_is_refused(tmp_path, pictures, text):
    (tmp_path / "l.json").write_text(text)
    with pytest.raises(DatasetError, match=r"l\.json: expected COCO JSON"):
        open_source(pictures(tmp_path / "i"), labels=tmp_path / "l.json")
