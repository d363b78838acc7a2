import base64
import io

import numpy as np
from PIL import Image

from datasets import ImageFolder
from quant.report.contents.flips import KINDS
from quant.report.views.sections import SHOWN_FLIPS
from quant.report.views.thumbnails import thumbnail, thumbnails_from_source


def decoded(uri):
    head, data = uri.split(",", 1)
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_large_images_are_scaled_down_and_small_ones_stay():
    assert decoded(thumbnail(np.zeros((300, 600, 3), np.uint8))).size == (96, 48)
    assert decoded(thumbnail(np.zeros((8, 10, 3), np.uint8))).size == (10, 8)


def test_a_thumbnail_shows_its_image():
    pixels = np.zeros((200, 200, 3), np.uint8)
    pixels[:, 100:] = (200, 30, 60)
    shown = np.asarray(decoded(thumbnail(pixels)), np.int64)
    assert np.abs(shown[48, 80] - (200, 30, 60)).max() < 12
    assert shown[48, 10].max() < 12


def test_the_worst_images_leave_the_page_under_3_mb():
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)
    small = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)  # nothing compresses worse
    assert len(KINDS) * SHOWN_FLIPS * max(len(thumbnail(noise)), len(thumbnail(small))) < 1_500_000


def test_only_what_can_be_read_is_pictured(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    source = ImageFolder(tmp_path)
    (tmp_path / "b.png").write_bytes(b"damaged since")
    assert set(thumbnails_from_source(source, ["a.png", "b.png"])) == {"a.png"}
    assert thumbnails_from_source(object(), ["a.png"]) == {}
