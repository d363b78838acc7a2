"""Masks in the files that data sets have: palettes, grey, 16 bits, colours."""

import os

import numpy as np
import pytest
from PIL import Image

from datasets.errors import DatasetError
from datasets.masks.masked_images import numbers_text
from datasets.masks.reading import mask_from_file

NUMBERS = np.array([[0, 1, 2], [15, 20, 255]])


def palette_image():
    image = Image.fromarray(NUMBERS.astype(np.uint8), "P")
    image.putpalette([(7 * i) % 256 for i in range(768)])  # colours that say nothing
    return image


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_a_palette_s_indices_are_the_numbers(tmp_path, suffix):
    palette_image().save(tmp_path / f"m{suffix}")
    np.testing.assert_array_equal(mask_from_file(tmp_path / f"m{suffix}"), NUMBERS)


def test_grey_values_are_the_numbers(tmp_path):
    Image.fromarray(NUMBERS.astype(np.uint8)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(mask_from_file(tmp_path / "m.png"), NUMBERS)


def test_sixteen_bits_are_not_crushed(tmp_path):
    numbers = np.array([[0, 300], [4000, 65535]], np.uint16)
    Image.fromarray(numbers).save(tmp_path / "m.png")
    np.testing.assert_array_equal(mask_from_file(tmp_path / "m.png"), numbers)


def test_one_bit_is_0_and_1(tmp_path):
    Image.fromarray(np.array([[True, False], [False, True]])).save(tmp_path / "m.png")
    np.testing.assert_array_equal(mask_from_file(tmp_path / "m.png"), [[1, 0], [0, 1]])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_equal_channels_are_one(tmp_path, mode):
    Image.fromarray(NUMBERS.astype(np.uint8)).convert(mode).save(tmp_path / "m.png")
    np.testing.assert_array_equal(mask_from_file(tmp_path / "m.png"), NUMBERS)


def test_colours_of_pascal_voc(tmp_path):
    """Aeroplane is (128, 0, 0), bicycle (0, 128, 0), person (192, 128, 128), monitor (0, 64, 128), border 224s."""
    colours = [[(0, 0, 0), (128, 0, 0), (0, 128, 0)], [(192, 128, 128), (0, 64, 128), (224, 224, 192)]]
    Image.fromarray(np.array(colours, np.uint8)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(mask_from_file(tmp_path / "m.png"), [[0, 1, 2], [15, 20, 255]])


def test_other_colours_are_refused(tmp_path):
    Image.fromarray(np.full((2, 2, 3), (1, 2, 3), np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(DatasetError, match=r"m\.png: expected class numbers .*, found the colour #010203; save masks"):
        mask_from_file(tmp_path / "m.png")


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DatasetError, match=r"text\.png: not an image"):
        mask_from_file(tmp_path / "text.png")
    with pytest.raises(DatasetError, match=r"absent\.png: the mask cannot be read: no such file"):
        mask_from_file(tmp_path / "absent.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DatasetError, match=r"pipe\.png: the mask cannot be read: .*a pipe"):
        mask_from_file(tmp_path / "pipe.png")


def test_numbers_in_words():
    assert numbers_text([0, 1, 2, 3, 255]) == "0 to 3, 255"
    assert numbers_text([5]) == "5"
