"""How many pixels are decoded at a time, and of which image."""

import threading

import pytest
from PIL import Image

from datasets import DatasetError
from datasets.guards.decoding_space import DecodingSpace, bomb, most_pixels

LARGE = 2**21


def test_a_user_may_raise_the_largest_number_of_pixels(monkeypatch):
    assert most_pixels() == Image.MAX_IMAGE_PIXELS
    assert bomb(16_000, 12_000).startswith("decompression bomb: 16000 x 12000 pixels, at most 89478485 are decoded")
    monkeypatch.setenv("CALIB_MAX_IMAGE_PIXELS", "200000000")
    assert bomb(16_000, 12_000) == ""
    assert "at most 200000000 are decoded; if it is a real image, set CALIB_MAX_IMAGE_PIXELS" in bomb(16_000, 12_501)


@pytest.mark.parametrize("value", ["many", "-3", "0", "1e9", "9" * 40])
def test_a_number_of_pixels_that_is_none_is_told(monkeypatch, value):
    monkeypatch.setenv("CALIB_MAX_IMAGE_PIXELS", value)
    with pytest.raises(DatasetError, match="CALIB_MAX_IMAGE_PIXELS: expected a number of pixels, such as 200000000, f"):
        bomb(1, 1)


def test_rows_have_a_cost_of_their_own():
    assert bomb(89_000_000, 1) == ""
    assert bomb(1, 89_000_000).startswith("decompression bomb: 1 x 89000000 pixels")


def test_large_images_wait_for_one_another_and_small_ones_do_not():
    space = DecodingSpace(2 * LARGE)
    decoding, done = threading.Event(), threading.Event()

    def second():
        with space.turn():
            space.take(1000)
            decoding.set()
            space.take(LARGE + 1)
            done.set()

    with space.turn():
        space.take(LARGE)
        thread = threading.Thread(target=second)
        thread.start()
        assert decoding.wait(60)
        assert not done.wait(0.1)
    assert done.wait(60)
    thread.join()
    with space.turn():
        space.take(2 * LARGE)  # all has been given back


def test_an_image_larger_than_all_space_is_decoded_alone_and_turns_nest():
    space = DecodingSpace(LARGE)
    done = threading.Event()

    def other():
        with space.turn():
            space.take(LARGE)
            done.set()

    with space.turn():
        with space.turn():
            space.take(10 * LARGE)
            space.take(10 * LARGE)
        thread = threading.Thread(target=other)
        thread.start()
        assert not done.wait(0.1)  # the outer turn still holds it
    assert done.wait(60)
    thread.join()
