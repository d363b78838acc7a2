import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from datasets.decoding import FORMATS, decode_image
from datasets.errors import UnreadableImageError


def encoded(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def decoded(data, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return decode_image(io.BytesIO(data), "x", expected)


def reason_of(data, expected):
    with pytest.raises(UnreadableImageError) as caught:
        decoded(data, expected)
    assert caught.value.file == "x"
    assert str(caught.value) == f"x: {caught.value.reason}"
    assert "\n" not in caught.value.reason
    return caught.value.reason


@pytest.mark.parametrize(("pillow", "expected"), [("PNG", "PNG"), ("BMP", "BMP"), ("TIFF", "TIFF"), ("WEBP", "WebP")])
def test_lossless_formats_give_the_exact_pixels(pillow, expected):
    pixels = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    options = {"lossless": True} if pillow == "WEBP" else {}
    assert np.array_equal(decoded(encoded(Image.fromarray(pixels), pillow, **options), expected), pixels)


def test_jpeg_gives_the_colour_within_its_loss():
    found = decoded(encoded(Image.new("RGB", (16, 8), (200, 100, 50)), "JPEG", quality=95), "JPEG")
    assert found.shape == (8, 16, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - (200, 100, 50)).max() <= 2


def test_mpo_counts_as_jpeg_and_gives_its_first_picture():
    second = Image.new("RGB", (16, 16), (0, 0, 255))
    data = encoded(Image.new("RGB", (16, 16), (255, 0, 0)), "MPO", save_all=True, append_images=[second])
    assert np.abs(decoded(data, "JPEG").astype(int) - (255, 0, 0)).max() <= 2


def palette_image(transparent=None):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    if transparent is not None:
        image.info["transparency"] = transparent
    return image


MODES = {
    "1-bit": (Image.new("1", (2, 1), 1), [[255, 255, 255], [255, 255, 255]]),
    "grey": (Image.new("L", (2, 1), 77), [[77, 77, 77], [77, 77, 77]]),
    "grey with alpha": (Image.new("LA", (2, 1), (77, 3)), [[77, 77, 77], [77, 77, 77]]),
    "palette": (palette_image(), [[255, 0, 0], [0, 255, 0]]),
    "palette with a transparent colour": (palette_image(1), [[255, 0, 0], [0, 255, 0]]),
    "palette with transparency per colour": (palette_image(b"\x00\x80"), [[255, 0, 0], [0, 255, 0]]),
    "alpha is dropped": (Image.new("RGBA", (2, 1), (9, 8, 7, 0)), [[9, 8, 7], [9, 8, 7]]),
}


@pytest.mark.parametrize("kind", MODES)
def test_png_modes_become_rgb(kind):
    image, row = MODES[kind]
    assert decoded(encoded(image, "PNG"), "PNG").tolist() == [row]


def test_png_with_a_transparent_rgb_colour_keeps_the_colour():
    data = encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert decoded(data, "PNG").tolist() == [[[1, 2, 3]]]


def test_cmyk_tiff_and_jpeg_become_rgb():
    # No black, half cyan: red is halved, green and blue stay full.
    image = Image.new("CMYK", (8, 8), (128, 0, 0, 0))
    assert decoded(encoded(image, "TIFF"), "TIFF")[0, 0].tolist() == [127, 255, 255]
    assert np.abs(decoded(encoded(image, "JPEG", quality=100), "JPEG")[4, 4].astype(int) - (127, 255, 255)).max() <= 3


# 257 steps of 16 bits are one of 8: 128 / 257 rounds to 0, 129 / 257 to 1, 65535 / 257 is 255.
SIXTEEN = np.array([[0, 128, 129, 257, 32896, 65535]])
EIGHT = [0, 0, 1, 1, 128, 255]


@pytest.mark.parametrize(
    ("dtype", "file_format"), [("<u2", "PNG"), ("<u2", "TIFF"), (">u2", "TIFF"), ("<i4", "TIFF")], ids=str
)
def test_16_bit_grey_is_scaled_not_clipped(dtype, file_format):
    found = decoded(encoded(Image.fromarray(SIXTEEN.astype(dtype)), file_format), file_format)
    assert found.dtype == np.uint8
    assert found[0].tolist() == [[value] * 3 for value in EIGHT]


def test_32_bit_integers_are_unreadable():
    data = encoded(Image.fromarray(np.array([[0, 70000]], np.int32)), "TIFF")
    assert reason_of(data, "TIFF").startswith("integer pixels from 0 to 70000, which no type tells; state it as pixel_")


def test_floating_point_tiff_is_unreadable():
    data = encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF")
    assert reason_of(data, "TIFF") == (
        "floating-point pixels have no defined range; state it as pixel_range = [lowest, highest] in the TOML file of "
        "--preprocess"
    )


# A 2 x 3 picture whose first row is a b c and second d e f, after each EXIF orientation, by the EXIF standard.
UPRIGHT = {
    1: ["abc", "def"],
    2: ["cba", "fed"],
    3: ["fed", "cba"],
    4: ["def", "abc"],
    5: ["ad", "be", "cf"],
    6: ["da", "eb", "fc"],
    7: ["fc", "eb", "da"],
    8: ["cf", "be", "ad"],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("pillow", "expected"), [("PNG", "PNG"), ("TIFF", "TIFF"), ("WEBP", "WebP")])
def test_exif_orientation_is_applied(orientation, pillow, expected):
    stored = np.repeat(np.array([[10, 20, 30], [40, 50, 60]], np.uint8)[:, :, None], 3, axis=2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if pillow == "WEBP" else {}
    found = decoded(encoded(Image.fromarray(stored), pillow, exif=exif, **options), expected)
    values = dict(zip("abcdef", (10, 20, 30, 40, 50, 60), strict=True))
    assert found[:, :, 0].tolist() == [[values[letter] for letter in row] for row in UPRIGHT[orientation]]


def test_exif_orientation_of_a_jpeg_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decoded(encoded(Image.new("RGB", (32, 16)), "JPEG", exif=exif), "JPEG").shape == (32, 16, 3)


def test_damaged_exif_does_not_make_a_sound_picture_unreadable():
    data = encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", exif=b"Exif\0\0garbage!")
    assert decode_image(io.BytesIO(data), "x", "PNG")[0, 0].tolist() == [1, 2, 3]


def noise(height=64, width=64):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("pillow", "expected"), [("JPEG", "JPEG"), ("PNG", "PNG"), ("BMP", "BMP"), ("WEBP", "WebP")])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated_files_are_unreadable(pillow, expected, part):
    data = encoded(noise(), pillow)
    assert reason_of(data[: int(len(data) * part)], expected).startswith(f"damaged or truncated {expected} file: ")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated_tiff_is_unreadable(part):
    data = encoded(noise(), "TIFF")
    with pytest.raises(UnreadableImageError, match="damaged or truncated TIFF file: "):
        decode_image(io.BytesIO(data[: int(len(data) * part)]), "x", "TIFF")


@pytest.mark.parametrize("expected", sorted(set(FORMATS.values())))
def test_empty_and_foreign_files_are_unreadable(expected):
    assert reason_of(b"", expected) == "empty file (0 bytes)"
    assert reason_of(b"<html><body>404", expected).startswith("not an image: the file begins with b'<html>")


@pytest.mark.parametrize(
    ("pillow", "expected", "words"),
    [
        ("PNG", "JPEG", "JPEG, but it holds PNG"),
        ("JPEG", "PNG", "PNG, but it holds JPEG"),
        ("GIF", "JPEG", "holds GIF"),
    ],
)
def test_mislabelled_files_are_unreadable(pillow, expected, words):
    assert words in reason_of(encoded(noise(), pillow), expected)


def test_heic_named_jpeg_is_told():
    assert "it holds HEIC" in reason_of(b"\0\0\0\x18ftypheic\0\0\0\0mif1", "JPEG")


def giant_png(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9500, 60000])
def test_decompression_bomb_is_found_from_the_header_without_a_warning(side):
    # 9500 x 9500 is above Pillow's limit for a warning, 60000 x 60000 above its limit for an error.
    reason = reason_of(giant_png(side, side), "PNG")
    assert reason == (
        f"decompression bomb: {side} x {side} pixels, at most {Image.MAX_IMAGE_PIXELS} are decoded; if it is a real "
        "image, set CALIB_MAX_IMAGE_PIXELS to a larger number"
    )


def test_largest_allowed_picture_is_not_called_a_bomb(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64)
    assert decoded(encoded(noise(), "PNG"), "PNG").shape == (64, 64, 3)
    assert "decompression bomb: 65 x 64 pixels" in reason_of(encoded(noise(64, 65), "PNG"), "PNG")
