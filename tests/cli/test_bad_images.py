"""Bad data: one line that says where it is, exit code 1, older files unchanged."""

import shutil

import pytest

from tests.bad_images import BAD, empty, truncated


@pytest.fixture
def folder_of(colours):
    """A data folder with the given files."""

    def make(files):
        folder = colours / "other"
        folder.mkdir()
        for name, contents in files.items():
            (folder / name).write_bytes(contents)
        return folder

    return make


def test_an_unreadable_image_is_left_out_and_named(calib, colours, report):
    truncated(colours / "imgs" / "red" / "03.png")
    result = calib("run", "--quiet", "--num-images", 36, cwd=colours)
    assert result.code == 0, result.err
    (left_out,) = report(colours)["quarantined"]
    assert left_out["file"] == "red/03.png"
    assert BAD[truncated] in left_out["reason"]
    assert report(colours)["calibration"]["images"] == 35
    assert report(colours)["data"]["evaluation"]["images"] == 35
    warning = next(line for line in result.warnings if "left out" in line)
    assert warning.startswith("1 unreadable images were left out, red/03.png first: ")
    for name in ("report.md", "report.html"):
        assert "red/03.png" in (colours / "calib-out" / name).read_text()


def test_over_5_percent_unreadable_images_stop_the_run(calib, finished, snapshot):
    older = snapshot(finished / "calib-out")
    for name in ("red/03.png", "blue/04.png"):
        empty(finished / "imgs" / name)
    result = calib("run", "--quiet", "--num-images", 36, cwd=finished)
    assert result.code == 1
    lines = [line for line in result.err.splitlines() if line.startswith("calib: error: ")]
    assert len(lines) == 1
    assert "2 of 36 images are unreadable, more than --max-bad 0.05 allows" in lines[0]
    assert ".png: empty file (0 bytes)" in lines[0]
    assert snapshot(finished / "calib-out") == older


def test_no_readable_image_at_all_stops_the_run_whatever_max_bad_says(calib, folder_of, colours):
    folder_of({"a.png": b"", "b.png": b""})
    result = calib("run", "--quiet", "--data", "other", "--num-images", 2, "--max-bad", 1, cwd=colours)
    assert result.code == 1
    assert "none of the 2 images is readable; the first is" in result.error


def test_bad_images_of_the_same_name_in_two_folders_are_both_reported(calib, colours, report):
    shutil.copytree(colours / "imgs", colours / "test")
    empty(colours / "imgs" / "red" / "03.png")
    empty(colours / "test" / "red" / "03.png")
    assert calib("run", "--eval", "test", "--num-images", 36, cwd=colours).code == 0
    assert [item["file"] for item in report(colours)["quarantined"]] == ["imgs/red/03.png", "test/red/03.png"]


CASES = {
    "nowhere": ("nowhere: no such file or folder", "expected a folder of images"),
    "empty": ("empty: no images in it", "found no files at all"),
    "texts": ("texts: no images in it", "expected files ending in .jpg", "found 2 .txt"),
    "notes.txt": ("notes.txt: expected a folder of images, a data.yaml, a pack ending in .h5",),
    "broken.h5": ("broken.h5: not an HDF5 file", "calib pack"),
}


@pytest.mark.parametrize("option", ["--data", "--eval"])
@pytest.mark.parametrize("name", CASES)
def test_data_that_is_none_is_told(calib, finished, snapshot, name, option):
    older = snapshot(finished / "calib-out")
    for folder in ("empty", "texts"):
        (finished / folder).mkdir()
    for text_file in ("texts/a.txt", "texts/b.txt", "notes.txt", "broken.h5"):
        (finished / text_file).write_text("words")
    result = calib("run", "--quiet", option, name, cwd=finished)
    assert result.code == 1
    assert all(part in result.error for part in CASES[name])
    assert snapshot(finished / "calib-out") == older


def test_labels_outside_the_models_classes_are_told(calib, finished, snapshot):
    older = snapshot(finished / "calib-out")
    names = sorted(path.relative_to(finished / "imgs").as_posix() for path in (finished / "imgs").rglob("*.png"))
    rows = [f"{name},{7 if name == 'green/02.png' else 1}" for name in names]
    (finished / "labels.csv").write_text("file,label\n" + "\n".join(rows) + "\n")
    result = calib("run", "--quiet", "--labels", "labels.csv", cwd=finished)
    assert result.code == 1
    assert "imgs: expected labels 0..2 as the model has 3 classes, found 7" in result.error
    assert snapshot(finished / "calib-out") == older


def test_more_class_folders_than_the_model_has_classes_are_told_and_not_used_as_labels(calib, finished, report):
    (finished / "imgs" / "yellow").mkdir()
    (finished / "imgs" / "red" / "00.png").rename(finished / "imgs" / "yellow" / "00.png")
    result = calib("run", "--quiet", "--precision", "fp16", cwd=finished)
    assert result.code == 0
    told = next(line for line in result.warnings if "expected labels" in line)
    assert "imgs: expected labels of the 3 classes that the model has, found 4 (blue, green, red, ...)" in told
    assert told.endswith("with --classes; the labels are not used")
    found = report(finished)
    assert (found["verdict"], found["data"]["evaluation"]["labelled"]) == ("unlabelled", False)


def test_classes_that_were_asked_for_and_do_not_fit_are_an_error(calib, finished, snapshot):
    older = snapshot(finished / "calib-out")
    (finished / "imgs" / "yellow").mkdir()
    (finished / "imgs" / "red" / "00.png").rename(finished / "imgs" / "yellow" / "00.png")
    (finished / "classes.txt").write_text("blue\ngreen\nred\nyellow\n")
    result = calib("run", "--quiet", "--classes", "classes.txt", cwd=finished)
    assert result.code == 1
    assert "imgs: expected labels of the 3 classes that the model has, found 4 (blue, green, red, ...)" in result.error
    assert snapshot(finished / "calib-out") == older


def test_a_label_file_with_a_wrong_line_is_told_with_its_line(calib, colours):
    (colours / "labels.csv").write_text("file,label\nred/00.png,red\nred/01.png,\n")
    result = calib("run", "--quiet", "--labels", "labels.csv", cwd=colours)
    assert result.code == 1
    assert "labels.csv:3: 'red/01.png' has an empty label" in result.error
