"""Labels of several values, as tables have them."""

import numpy as np
import pytest
from PIL import Image

from datasets import ImageFolder, open_source, write_pack
from datasets.errors import DatasetError
from datasets.labels.class_labels import are_labelled
from datasets.sampling import sample_indices
from datasets.values.valued_images import ValuedImages


@pytest.fixture
def opened(tmp_path):
    """Three images with a table."""
    for name in ("a.png", "b.png", "sub/c.png"):
        (tmp_path / "imgs" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "imgs" / name)

    def make(*lines, **options):
        (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
        return open_source(tmp_path / "imgs", labels=tmp_path / "labels.csv", **options)

    return make


def test_numbers_come_in_the_images_order(opened):
    source = opened("file,x,y", "sub\\c.png,5,6", "./a.png,1,2.5", "b.png,-3,4e1")
    assert isinstance(source, ValuedImages)
    assert source.columns == ("x", "y") and source.class_names is None
    np.testing.assert_array_equal(source.labels, [[1, 2.5], [-3, 40], [5, 6]])
    assert source.labels.dtype == np.float64


def test_zeros_and_ones_are_classes(opened):
    source = opened("image,red,round", "a.png,1,0", "b.png,1,1", "sub/c.png,0,0")
    assert source.class_names == ("red", "round") and source.labels.dtype == np.int64
    assert repr(source).endswith("3 images, 2 values each)")
    ordered = opened("image,red,round", "a.png,1,0", "b.png,1,1", "sub/c.png,0,0", classes=["round", "red"])
    assert ordered.labels.tolist() == [[0, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize("between", [" ", ";", "|", "; "])
def test_several_classes_in_a_cell(opened, between):
    source = opened("file,tags", f"a.png,cat{between}dog", "b.png,dog", "sub/c.png,")
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [[1, 1], [0, 1], [0, 0]]


FORMS = {
    "tabs": ("file\tx\ty", "a.png\t1\t2", "b.png\t3\t4", "sub/c.png\t5\t6"),
    "semicolons": ("file;x;y", "a.png;1;2", "b.png;3;4", "sub/c.png;5;6"),
    "ids": ("image_id,x,y", "a,1,2", "b,3,4", "c,5,6"),
    "other folders": ("path,x,y", "data/imgs/a.png,1,2", "data/imgs/b.png,3,4", "data/imgs/sub/c.png,5,6"),
    "images last": ("x,y,file", "1,2,a.png", "3,4,b.png", "5,6,sub/c.png"),
    "foreign rows": ("file,x,y", "a.png,1,2", "b.png,3,4", "sub/c.png,5,6", "test/d.png,7,8"),
    "told twice": ("file,x,y", "a.png,1,2", "a.png,1,2", "b.png,3,4", "sub/c.png,5,6"),
}


@pytest.mark.parametrize("form", FORMS)
def test_values_come_in_the_forms_that_labels_come_in(opened, form):
    source = opened(*FORMS[form])
    assert isinstance(source, ValuedImages)
    assert source.labels.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert source.text.startswith("labels: ")
    assert "2 columns of numbers" in source.text
    assert "3 of 3 images have them" in source.text
    assert ("1 rows name none of these images" in source.text) == (form == "foreign rows")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("file,x,y", "a.png,1.5,2", "sub/c.png,5,6"), [[1.5, 2], [np.nan, np.nan], [5, 6]]),
        (("file,red,round", "a.png,1,0", "sub/c.png,0,0"), [[1, 0], [-1, -1], [0, 0]]),
        (("file,tags", "a.png,cat dog", "sub/c.png,dog"), [[1, 1], [-1, -1], [0, 1]]),
        (("file,street,number", "a.png,Main,1", "sub/c.png,Low,3a"), [["Main", "1"], ["", ""], ["Low", "3a"]]),
    ],
)
def test_images_without_values_are_counted_and_not_evaluated(opened, lines, expected):
    source = opened(*lines)
    np.testing.assert_array_equal(source.labels, expected)
    assert are_labelled(source.labels).tolist() == [True, False, True]
    (warning,) = source.warnings
    assert "1 of 3 images have no label, 'b.png' first" in warning


def test_texts_stay_texts(opened):
    source = opened("file,street,number", "a.png,Main,1", "b.png,High,2a", "sub/c.png,Low,3")
    assert source.labels.tolist() == [["Main", "1"], ["High", "2a"], ["Low", "3"]]


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        (("file,x,y", "a.png,1,2", "a.png,1,3"), "labels.csv:3: 'a.png' already has values on line 2"),
        (("file,x,y", "z.png,1,2"), "labels.csv:2: no column names an image of .*, such as 'a.png'"),
        (("file,x,y", "a.png,1,2", "x.png,1,2", "y.png,1,2"), "names only 1 of the 3 images of .*, and 2 rows are of"),
        (("file,x,y", "a.png,1"), "labels.csv:2: expected 3 columns, found 2"),
    ],
)
def test_what_does_not_fit_is_named(opened, lines, part):
    with pytest.raises(DatasetError, match=part):
        opened(*lines)


def test_other_classes_than_those_given(opened):
    lines = ("file,tags", "a.png,cat dog", "b.png,dog", "sub/c.png,cow")
    with pytest.raises(DatasetError, match=r"labels\.csv:4: 'cow' is not one of the 2 classes given"):
        opened(*lines, classes=["cat", "dog"])
    with pytest.raises(DatasetError, match="found 'y' in one of them only"):
        opened("file,x,y", "a.png,1,0", "b.png,1,1", "sub/c.png,0,0", classes=["x", "z"])


def test_a_column_of_classes_is_what_it_was(opened):
    lines = ("file,label", "a.png,cat", "b.png,dog", "sub/c.png,cat")
    assert type(opened(*lines)) is ImageFolder
    assert opened("file,label,split", "a.png,cat,t", "b.png,dog,t", "sub/c.png,cat,v").labels.tolist() == [0, 1, 0]


def test_images_are_drawn_whatever_their_values_are(opened):
    """By class, numbers with a point would make as many classes as images."""
    source = opened("file,x,y", "a.png,1.5,2", "b.png,1,2", "sub/c.png,0,4")
    assert len(sample_indices(source, 2)) == 2


def test_values_cannot_be_packed_as_classes(opened, tmp_path):
    source = opened("file,x,y", "a.png,1.5,2", "b.png,1,2", "sub/c.png,0,4")
    with pytest.raises(DatasetError, match="which a pack holds, found several an image; pack the images without"):
        write_pack(source, tmp_path / "p.h5")
    assert not (tmp_path / "p.h5").exists()
