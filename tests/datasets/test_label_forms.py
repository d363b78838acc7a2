"""Labels in the forms that people have them in: each must be read as what it says."""

import csv
import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets import DatasetError, ImageFolder
from datasets.labels import labels_from_file, read_classes

IMAGES = [f"ILSVRC_val_0000000{i}.JPEG" for i in range(1, 9)]
TRUTH = [0, 0, 1, 1, 2, 2, 3, 3]
WNIDS = ["n01440764", "n01443537", "n01484850", "n01491361"]
SYNSETS = "n01440764 circle, disc\nn01443537 square\nn01484850 stripes\nn01491361 triangle\n"
EXTENSIONS = frozenset({".jpeg", ".jpg", ".png"})


@pytest.fixture
def flat(tmp_path, save_image):
    for name in IMAGES:
        save_image(tmp_path / "flat" / name, size=(2, 2), format="JPEG")
    return tmp_path / "flat"


def rows(first, second, separator=","):
    return "".join(f"{a}{separator}{b}\n" for a, b in zip(first, second, strict=True))


STEMS = [name.removesuffix(".JPEG") for name in IMAGES]
NAMED = [WNIDS[label] for label in TRUTH]
FORMS = {
    "ImageNet's val.txt": ("val.txt", rows(IMAGES, TRUTH, " ")),
    "no header": ("nohead.csv", rows(IMAGES, TRUTH)),
    "label first": ("swapped.csv", rows(TRUTH, IMAGES)),
    "label first, header": ("swapped.csv", "label,file\n" + rows(TRUTH, IMAGES)),
    "label first, blanks": ("swapped.txt", rows(TRUTH, IMAGES, " ")),
    "tabs": ("tab.tsv", "file\tlabel\n" + rows(IMAGES, TRUTH, "\t")),
    "semicolons": ("semi.csv", "file;label\n" + rows(IMAGES, TRUTH, ";")),
    "IDs under Kaggle's header": ("kaggle.csv", "ImageId,Class\n" + rows(STEMS, TRUTH)),
    "IDs without a header": ("ids.csv", rows(STEMS, TRUTH)),
    "prefix of the folder": ("prefix.csv", "file,label\n" + rows([f"flat/{n}" for n in IMAGES], TRUTH)),
    "prefix of elsewhere": ("prefix.csv", "file,label\n" + rows([f"images/all/{n}" for n in IMAGES], TRUTH)),
    "absolute paths of another machine": (
        "abs.csv",
        "file,label\n" + rows([f"/tmp/x/flat/{n}" for n in IMAGES], TRUTH),
    ),
    "Windows paths": ("win.csv", "path,target\n" + rows([f"C:\\data\\flat\\{n}" for n in IMAGES], TRUTH)),
    "another extension": ("png.csv", "file,label\n" + rows([f"{n}.png" for n in STEMS], TRUTH)),
    "names in two columns": ("two.csv", "id,file,label\n" + rows([f"{n[:-5]},flat/{n}" for n in IMAGES], TRUTH)),
    "more columns": ("more.csv", ",image,split,label\n" + rows([f"{i},{n},val" for i, n in enumerate(IMAGES)], TRUTH)),
    "words nobody expects above": ("odd.csv", "bild,klasse\n" + rows(IMAGES, TRUTH)),
    "quotes": ("quoted.csv", '"file","label"\n' + rows([f'"{n}"' for n in IMAGES], TRUTH)),
    "another order": ("order.csv", "file,label\n" + rows(IMAGES[::-1], TRUTH[::-1])),
}


@pytest.mark.parametrize("form", FORMS)
def test_labels_are_read_in_every_form(flat, tmp_path, form):
    name, text = FORMS[form]
    (tmp_path / name).write_text(text)
    folder = ImageFolder(flat, labels=tmp_path / name)
    assert folder.labels.tolist() == TRUTH
    assert folder.class_names is None
    assert folder.warnings == ()
    assert str(tmp_path / name) in folder.notes[-1]
    assert "8 of 8 images have one" in folder.notes[-1]


def test_how_a_file_was_read_is_said_in_a_line(flat, tmp_path):
    path = tmp_path / "k.csv"
    path.write_text("Class,ImageId\n" + rows(NAMED, STEMS))
    assert ImageFolder(flat, labels=path).notes[-1] == (
        f"labels: {path}, images in 'ImageId', labels in 'Class', commas between (line 1 is the header); 8 of 8 images "
        "have one; images are found without their extension"
    )
    path.write_text(rows([f"/data/{name}" for name in IMAGES], TRUTH, "\t"))
    assert ImageFolder(flat, labels=path).notes[-1] == (
        f"labels: {path}, images in column 1, labels in column 2, tabs between (no header); 8 of 8 images have one; "
        "images are found by the end of their paths"
    )


@pytest.mark.parametrize("labels", [NAMED, [["circle", "square", "stripes", "triangle"][i] for i in TRUTH]])
def test_synset_words_name_classes_by_id_and_by_word(flat, tmp_path, labels):
    classes = tmp_path / "synset_words.txt"
    classes.write_text(SYNSETS)
    (tmp_path / "labels.csv").write_text("file,label\n" + rows(IMAGES, labels))
    folder = ImageFolder(flat, labels=tmp_path / "labels.csv", classes=classes)
    assert folder.class_names == ("circle, disc", "square", "stripes", "triangle")
    assert folder.labels.tolist() == TRUTH


def test_synset_words_are_the_classes_of_folders(tmp_path, save_image):
    (tmp_path / "words.txt").write_text(SYNSETS)
    for name in (f"imgs/{WNIDS[3]}/1.png", f"imgs/{WNIDS[1]}/1.png"):
        save_image(tmp_path / name)
    folder = ImageFolder(tmp_path / "imgs", classes=tmp_path / "words.txt")
    assert folder.labels.tolist() == [1, 3]
    assert folder.class_names[3] == "triangle"


def test_two_synsets_of_one_word_are_told_apart(tmp_path):
    (tmp_path / "words.txt").write_text("n02012849 crane\nn03126707 crane\nn03710721 maillot, tank suit\n")
    classes = read_classes(tmp_path / "words.txt")
    assert classes.names == ("crane (n02012849)", "crane (n03126707)", "maillot, tank suit")
    assert "crane" not in classes.index
    assert classes.index["n03126707"] == 1
    assert classes.index["maillot"] == 2


def test_classes_may_be_numbered(tmp_path):
    for text in ("0 circle\n1 square\n", "0: circle\n1: square\n", "0,circle\n1,square\n", "0\tcircle\n1\tsquare\n"):
        (tmp_path / "classes.txt").write_text(text)
        assert read_classes(tmp_path / "classes.txt").names == ("circle", "square")
    (tmp_path / "classes.txt").write_text("3 stooges\n2 stooges\n")  # these numbers do not count the lines
    assert read_classes(tmp_path / "classes.txt").names == ("3 stooges", "2 stooges")


def test_names_with_blanks_keep_them(tmp_path, save_image):
    for name in ("my cat.png", "my dog.png"):
        save_image(tmp_path / "imgs" / name)
    (tmp_path / "val.txt").write_text("my cat.png 4\nmy dog.png 9\n")
    assert ImageFolder(tmp_path / "imgs", labels=tmp_path / "val.txt").labels.tolist() == [4, 9]
    (tmp_path / "val.txt").write_text("4 my cat.png\n9 my dog.png\n")
    assert ImageFolder(tmp_path / "imgs", labels=tmp_path / "val.txt").labels.tolist() == [4, 9]


def test_a_table_of_all_splits_gives_each_its_own(tmp_path, save_image):
    """train/1.png and val/1.png are different images; the folder that is read says which rows are meant."""
    save_image(tmp_path / "ds/val/1.png")
    (tmp_path / "all.csv").write_text("file,label\ntrain/1.png,cat\nval/1.png,dog\n")
    folder = ImageFolder(tmp_path / "ds/val", labels=tmp_path / "all.csv")
    assert folder.class_names == ("dog",)
    assert "1 rows name none of these images" in folder.notes[-1]
    save_image(tmp_path / "elsewhere/1.png")
    with pytest.raises(DatasetError, match=r"all\.csv:3: '1\.png' already has a label on line 2"):
        ImageFolder(tmp_path / "elsewhere", labels=tmp_path / "all.csv")


def test_names_alone_find_images_in_sub_folders_unless_two_share_one(tmp_path, save_image):
    for name in ("a/1.png", "b/2.png", "b/deep/3.png"):
        save_image(tmp_path / "imgs" / name)
    (tmp_path / "l.csv").write_text("file,label\n1.png,5\n2.png,6\ndeep/3.png,7\n")
    assert ImageFolder(tmp_path / "imgs", labels=tmp_path / "l.csv").labels.tolist() == [5, 6, 7]
    save_image(tmp_path / "imgs/c/1.png")
    folder = ImageFolder(tmp_path / "imgs", labels=tmp_path / "l.csv")
    assert folder.labels.tolist() == [-1, 6, 7, -1]  # which 1.png is meant is not known


def test_the_extension_decides_between_numbers_that_could_be_images(tmp_path, save_image):
    for i in range(3):
        save_image(tmp_path / "imgs" / f"{i}.png")
    (tmp_path / "l.csv").write_text("0.png,2\n1.png,1\n2.png,0\n")
    assert ImageFolder(tmp_path / "imgs", labels=tmp_path / "l.csv").labels.tolist() == [2, 1, 0]
    (tmp_path / "l.csv").write_text("id,label\n0,2\n1,0\n2,1\n")
    assert ImageFolder(tmp_path / "imgs", labels=tmp_path / "l.csv").labels.tolist() == [2, 0, 1]


NAMES = st.lists(
    st.text(st.sampled_from("abcxyz019_- ."), min_size=1, max_size=8)
    .map(str.strip)
    .filter(lambda name: name.strip(".- ") and not name.startswith(".") and not name.endswith(".")),
    min_size=1,
    max_size=12,
    unique=True,
)
ABOVE = st.sampled_from(["", "imgs/", "other/place/", "/data/imgs/", ".\\", "C:\\imgs\\"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_is_written_is_read_again(tmp_path, data):
    """A table of any images and labels, in any dialect, gives each image its own label or is refused."""
    names = [f"{name}.png" for name in data.draw(NAMES)]
    separator, above = data.draw(st.sampled_from(",;\t")), data.draw(ABOVE)
    letters = st.text(st.sampled_from(f"abc0123' -.{separator}"), max_size=6)  # the separator is quoted
    labels = [f"L{data.draw(letters)}".strip() for _ in names]
    header, swapped, ids = (data.draw(st.booleans()) for _ in range(3))
    cells = [f"{above}{name.removesuffix('.png') if ids else name}" for name in names]
    order = data.draw(st.permutations(range(len(names))))
    table = [["file", "label"]] * header + [[cells[i], labels[i]] for i in order]
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows([row[::-1] for row in table] if swapped else table)
    path = tmp_path / "labels.csv"
    path.write_text(out.getvalue(), newline="")
    found = labels_from_file(path, tmp_path / "imgs", sorted(names), None, EXTENSIONS)
    truth = dict(zip(names, labels, strict=True))
    assert [found.class_names[i] for i in found.indices] == [truth[name] for name in sorted(names)]
    assert found.missing == 0
    assert found.indices.dtype == np.int64
