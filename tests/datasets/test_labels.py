import numpy as np
import pytest

from datasets import DatasetError, ImageFolder


@pytest.fixture
def flat(tmp_path, save_image):
    """A flat folder with a.png, b.png and c.png."""
    for name in "abc":
        save_image(tmp_path / "imgs" / f"{name}.png")
    return tmp_path / "imgs"


@pytest.fixture
def labels_csv(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "labels.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def error_of(folder, **arguments):
    with pytest.raises(DatasetError) as caught:
        ImageFolder(folder, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_csv_with_names_counts_them_alphabetically(flat, labels_csv):
    folder = ImageFolder(flat, labels=labels_csv("file,label\nb.png,zebra\na.png,ant\nc.png,ant\n"))
    assert folder.class_names == ("ant", "zebra")
    assert folder.labels.tolist() == [0, 1, 0]


def test_csv_with_numbers_that_are_no_classes_keeps_them(flat, labels_csv):
    folder = ImageFolder(flat, labels=labels_csv("file,label\na.png,63.5\nb.png,-4\nc.png,1e2\n"))
    assert folder.class_names is None
    assert folder.labels.dtype == np.float64
    assert folder.labels.tolist() == [63.5, -4.0, 100.0]
    assert "labelled with numbers" in repr(folder)


def test_names_that_only_look_like_numbers_to_some_are_names(flat, labels_csv):
    folder = ImageFolder(flat, labels=labels_csv("file,label\na.png,nan\nb.png,inf\nc.png,1_0\n"))
    assert folder.class_names == ("1_0", "inf", "nan")


def test_csv_with_indices_leaves_the_class_names_open(flat, labels_csv):
    folder = ImageFolder(flat, labels=labels_csv("file,label\na.png,7\nb.png,0\nc.png,12\n"))
    assert folder.class_names is None
    assert folder.labels.tolist() == [7, 0, 12]


@pytest.mark.parametrize(
    "text",
    [
        "label,note,file\r\n1,x,a.png\r\n2,y,b.png\r\n\r\n3,z,c.png\r\n",
        "\ufefffile,label\na.png,1\nb.png,2\nc.png,3",
        'File, Label\n"a.png",1\n./b.png, 2\n.\\c.png,3\n',
    ],
    ids=["other columns, CRLF, blank line", "byte order mark", "quotes, blanks, leading dot"],
)
def test_csv_dialects(flat, labels_csv, text):
    assert ImageFolder(flat, labels=labels_csv(text)).labels.tolist() == [1, 2, 3]


def test_csv_takes_the_place_of_folders(tmp_path, save_image, labels_csv):
    for name in ("x.png", "cat/1.png"):
        save_image(tmp_path / "imgs" / name)
    folder = ImageFolder(tmp_path / "imgs", labels=labels_csv("file,label\nx.png,1\ncat\\1.png,0\n"))
    assert folder.names == ("cat/1.png", "x.png")
    assert folder.labels.tolist() == [0, 1]


def test_classes_file_sets_the_order(tmp_path, flat, labels_csv):
    classes = tmp_path / "classes.txt"
    classes.write_text("zebra\nyak\nant\n\n")
    labels = labels_csv("file,label\na.png,ant\nb.png,zebra\nc.png,1\n")
    folder = ImageFolder(flat, labels=labels, classes=classes)
    assert folder.class_names == ("zebra", "yak", "ant")
    assert folder.labels.tolist() == [2, 0, 1]


def test_classes_set_the_order_of_folders(tmp_path, save_image):
    for name in ("cat/1.png", "dog/1.png"):
        save_image(tmp_path / name)
    folder = ImageFolder(tmp_path, classes=["dog", "emu", "cat"])
    assert folder.class_names == ("dog", "emu", "cat")
    assert folder.labels.tolist() == [2, 0]
    assert "folder 'cat' (of 'cat/1.png') is not one of the 1 classes given" in error_of(tmp_path, classes=["dog"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "labels.csv: expected a row for each image with its name and its label, separated by a comma, a tab or"),
        ("a.png\nb.png\n", "labels.csv: expected a row for each image with its name and its label"),
        ("file,label\ny.png,1\nz.png,1\n", "labels.csv:2: no column names an image of "),
        ("a.png,1,2\nb.png,1,2\nc.png,1,2\n", "labels.csv:1: expected a header that calls one column 'label', because"),
        ("file,class,target\na.png,1,2\n", "labels.csv:1: expected a header that calls one column 'label', because"),
        ("a,b\nb,c\nc,a\n", "labels.csv: columns 1 and 2 both name images; put the header 'file,label' above them"),
        ("file,label\na.png,1\n\na.png,2\n", "labels.csv:4: 'a.png' already has a label on line 2"),
        ("file,label\na.png,\n", "labels.csv:2: 'a.png' has an empty label"),
        ("file,label\na.png\n", "labels.csv:2: expected 2 columns, found 1"),
        ("file,label\na.png,1\nb.png,cat\nc.png,1\n", "labels.csv:2: label '1' is an index, but other labels are"),
    ],
)
def test_wrong_rows_are_told_with_their_line(flat, labels_csv, text, expected):
    assert expected in error_of(flat, labels=labels_csv(text))


def test_images_without_a_row_have_no_label_and_are_counted(flat, labels_csv):
    folder = ImageFolder(flat, labels=labels_csv("file,label\nb.png,1\n"))
    assert folder.labels.tolist() == [-1, 1, -1]
    assert folder.warnings == (
        f"{flat}: 2 of 3 images have no label, 'a.png' first; they may serve calibration, and are not evaluated",
    )
    numbers = ImageFolder(flat, labels=labels_csv("file,label\nb.png,1.5\n")).labels
    assert np.isnan(numbers[[0, 2]]).all()
    assert numbers[1] == 1.5


def test_rows_of_other_images_are_counted(flat, labels_csv):
    folder = ImageFolder(flat, labels=labels_csv("file,label\na.png,1\nz.png,7\nb.png,0\nc.png,1\n"))
    assert folder.labels.tolist() == [1, 0, 1]
    assert folder.notes[-1].endswith("; 3 of 3 images have one; 1 rows name none of these images")
    assert folder.warnings == ()


def test_a_file_that_is_about_other_images_is_refused(flat, labels_csv):
    message = error_of(flat, labels=labels_csv("file,label\na.png,1\nx.png,7\ny.png,0\nz.png,1\n"))
    assert "labels.csv: names only 1 of the 3 images of " in message
    assert message.endswith("and 3 rows are of others; expected labels of these images, such as 'a.png'")


@pytest.mark.parametrize("label", ["cow", "2", "-1"])
def test_label_outside_the_classes_given(flat, labels_csv, label):
    labels = labels_csv(f"file,label\na.png,cat\nb.png,{label}\nc.png,cat\n")
    assert f"labels.csv:3: {label!r} is not one of the 2 classes given" in error_of(
        flat, labels=labels, classes=["cat", "dog"]
    )


def test_missing_or_undecodable_csv(flat, labels_csv, tmp_path):
    assert "none.csv: no such file; expected a labels CSV" in error_of(flat, labels=tmp_path / "none.csv")
    labels = labels_csv("file,label\na.png,caf\u00e9\n", encoding="latin-1")
    assert "labels.csv: labels CSV is not UTF-8 text" in error_of(flat, labels=labels)
    assert "imgs: labels CSV cannot be read: Is a directory" in error_of(flat, labels=flat)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat\ndog\ncat\n", "classes.txt:3: class 'cat' is already on line 1"),
        ("cat\n\ndog\n", "classes.txt:2: empty line; expected a class name"),
        ("\n", "classes.txt: no class names; expected one name per line"),
    ],
)
def test_wrong_classes_file(flat, tmp_path, text, expected):
    (tmp_path / "classes.txt").write_text(text)
    assert expected in error_of(flat, classes=tmp_path / "classes.txt")


def test_missing_classes_file(flat, tmp_path):
    assert "none.txt: no such file; expected a classes file" in error_of(flat, classes=tmp_path / "none.txt")
