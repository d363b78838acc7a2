import os
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import DatasetError, ImageFolder
from datasets.errors import UnreadableImageError
from datasets.images.listing import suffix_of


def test_flat_folder_is_in_plain_name_order_and_unlabelled(tmp_path, save_image):
    for name in ("b.png", "B.png", "a10.png", "a9.png"):
        save_image(tmp_path / name)
    folder = ImageFolder(tmp_path)
    assert folder.names == ("B.png", "a10.png", "a9.png", "b.png")
    assert len(folder) == 4
    assert folder.labels is None
    assert folder.class_names is None


def test_class_per_folder_counts_classes_alphabetically(tmp_path, save_image):
    for name in ("dog/1.png", "cat/2.png", "cat/deeper/1.png", "ant/9.png"):
        save_image(tmp_path / name)
    folder = ImageFolder(tmp_path)
    assert folder.names == ("ant/9.png", "cat/2.png", "cat/deeper/1.png", "dog/1.png")
    assert folder.class_names == ("ant", "cat", "dog")
    assert folder.labels.tolist() == [0, 1, 1, 2]
    assert folder.labels.dtype == np.int64


def test_names_are_sorted_as_texts_not_as_paths(tmp_path, save_image):
    # As strings, "a-b/1.png" < "a/1.png", since "-" comes before "/".
    for name in ("a/1.png", "a-b/1.png"):
        save_image(tmp_path / name)
    assert ImageFolder(tmp_path).names == ("a-b/1.png", "a/1.png")


def test_every_extension_is_found_in_any_case(tmp_path, save_image):
    extensions = ["jpg", "jpeg", "jpe", "jfif", "png", "bmp", "webp", "tif", "tiff", "JPG", "JPEG", "Png", "TIF"]
    for i, extension in enumerate(extensions):
        save_image(tmp_path / f"{i:02}.{extension}", (100, 100, 100), (16, 16))
    folder = ImageFolder(tmp_path)
    assert len(folder) == len(extensions)
    for i in range(len(folder)):
        assert np.abs(folder.read(i).astype(int) - 100).max() <= 2


def test_hidden_files_and_folders_and_other_files_are_skipped(tmp_path, save_image):
    for name in (".hidden.png", ".cache/1.png", "a.png"):
        save_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    assert ImageFolder(tmp_path).names == ("a.png",)


def test_links_are_followed_but_not_in_circles(tmp_path, save_image):
    save_image(tmp_path / "imgs/cat/1.png")
    save_image(tmp_path / "elsewhere/2.png")
    (tmp_path / "imgs/cat/again").symlink_to(tmp_path / "imgs")
    (tmp_path / "imgs/dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "imgs/self").symlink_to(tmp_path / "imgs/self")
    assert ImageFolder(tmp_path / "imgs").names == ("cat/1.png", "dog/2.png")


def test_links_between_many_folders_are_an_error_and_no_search_without_end(tmp_path, save_image):
    """Twelve folders with links to all others: 12! paths, none of which is a circle."""
    names = [f"{i:02}" for i in range(12)]
    for name in names:
        save_image(tmp_path / "imgs" / name / "a.png")
        for other in names:
            if other != name:
                (tmp_path / "imgs" / name / f"to {other}").symlink_to(tmp_path / "imgs" / other)
    with pytest.raises(DatasetError, match="links lead to this folder in over 100 ways; give a folder without links"):
        ImageFolder(tmp_path / "imgs")


def test_a_folder_may_be_linked_to_from_several(tmp_path, save_image):
    save_image(tmp_path / "shared" / "a.png")
    for i in range(50):
        (tmp_path / "imgs" / f"{i:02}").mkdir(parents=True)
        (tmp_path / "imgs" / f"{i:02}" / "more").symlink_to(tmp_path / "shared")
    assert len(ImageFolder(tmp_path / "imgs")) == 50


def test_folders_that_are_nested_without_end_are_an_error(tmp_path, save_image):
    deep = tmp_path / "imgs"
    for _ in range(250):
        deep /= "d"
    save_image(deep / "a.png")
    with pytest.raises(
        DatasetError, match="lies over 200 folders deep; give a folder that holds the images themselves"
    ):
        ImageFolder(tmp_path / "imgs")


def test_dangling_link_is_an_unreadable_image(tmp_path, save_image):
    save_image(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    folder = ImageFolder(tmp_path)
    with pytest.raises(UnreadableImageError, match=r"^b\.png: cannot be read: no such file or directory$"):
        folder.read(1)


def test_large_files_are_decoded_from_disk_alike(tmp_path, save_image, monkeypatch):
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    for extension in ("png", "tiff", "bmp"):
        save_image(tmp_path / f"a.{extension}", pixels)
    monkeypatch.setattr("datasets.image_folder._READ_WHOLE_BYTES", 0)
    folder = ImageFolder(tmp_path)
    for i in range(3):
        assert np.array_equal(folder.read(i), pixels)


def test_unreadable_image_is_named_relative_to_the_folder(tmp_path, save_image):
    save_image(tmp_path / "cat/1.png")
    (tmp_path / "cat/2.png").write_bytes(b"")
    with pytest.raises(UnreadableImageError) as caught:
        ImageFolder(tmp_path).read(1)
    assert (caught.value.file, caught.value.reason) == ("cat/2.png", "empty file (0 bytes)")


def test_content_is_the_file_and_fingerprint_changes_with_it(tmp_path, save_image):
    path = save_image(tmp_path / "a.png")
    folder = ImageFolder(tmp_path)
    before = folder.fingerprint(0)
    assert folder.content(0) == path.read_bytes()
    assert folder.fingerprint(0) == before
    os.utime(path, ns=(1, 1))
    assert folder.fingerprint(0) != before
    path.unlink()
    with pytest.raises(UnreadableImageError, match="no such file"):
        folder.content(0)
    with pytest.raises(UnreadableImageError, match="no such file"):
        folder.fingerprint(0)


def test_no_such_folder(tmp_path):
    with pytest.raises(DatasetError, match="nowhere: no such folder; expected a folder of images"):
        ImageFolder(tmp_path / "nowhere")


def test_not_a_folder(tmp_path, save_image):
    with pytest.raises(DatasetError, match=r"a\.png: not a folder"):
        ImageFolder(save_image(tmp_path / "a.png"))


def test_no_images_tells_what_was_expected_and_found(tmp_path):
    with pytest.raises(
        DatasetError, match=r"no images in it; expected files ending in \.jpg .*; found no files at all"
    ):
        ImageFolder(tmp_path)
    for name in ("a.gif", "b.GIF", "c.txt", "README"):
        (tmp_path / name).write_text("x")
    with pytest.raises(DatasetError, match=r"found 2 \.gif, 1 \.txt, 1 without an extension"):
        ImageFolder(tmp_path)


def test_images_beside_class_folders_are_an_error_that_says_what_to_do(tmp_path, save_image):
    for name in ("x.png", "cat/1.png", "dog/1.png"):
        save_image(tmp_path / name)
    with pytest.raises(DatasetError) as caught:
        ImageFolder(tmp_path)
    assert "1 images are in the folder itself (first 'x.png') and 2 in sub-folders (first 'cat/1.png')" in str(
        caught.value
    )
    assert "use one sub-folder per class for all images" in str(caught.value)


@given(st.sampled_from(["", "d/", "d.e/", ".d/", "d/.e/"]), st.text("aJ. -", max_size=6))
def test_an_extension_is_that_of_a_path(folder, name):
    name = f"a{name}".rstrip(".")  # what "a." has differs between versions of Python
    assert suffix_of(folder + name) == PurePosixPath(folder, name).suffix.lower()
    assert suffix_of(f"{folder}.{name.replace('.', '')}") == ""
