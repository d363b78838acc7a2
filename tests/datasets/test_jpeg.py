"""JPEG files decoded without Pillow: the same pixels, and of damaged files the same words, as by Pillow alone."""

import io
import itertools
import random
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets import decoding
from datasets.decoding import Wanted, decode_image, decode_pixels
from datasets.errors import UnreadableImageError
from datasets.guards.decoding_space import SPACE
from datasets.images import jpeg
from datasets.images.jpeg import Kind, common_jpeg


def picture(height, width, mode="RGB", seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (1 + height // 3, 1 + width // 3, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height)).convert(mode)


def encoded(image, file_format="JPEG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def outcome(data, wanted=None):
    """The pixels of a file, or the line that says what is wrong with it."""
    try:
        return decode_pixels(io.BytesIO(data), "x", "JPEG", wanted)
    except UnreadableImageError as error:
        return str(error)


def by_pillow(data, wanted=None):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "common_jpeg", lambda data: None)
        return outcome(data, wanted)


def assert_same(data, wanted=None):
    found, expected = outcome(data, wanted), by_pillow(data, wanted)
    assert type(found) is type(expected)
    if isinstance(expected, str):
        assert found == expected
    else:
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    return found


def taken(data):
    """Whether a file is decoded without Pillow reading any of it."""
    common = common_jpeg(data)
    return common is not None and common.plain and common.pixels() is not None


def segment(marker, body=b""):
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def with_segment(data, marker, body):
    """A file with one more segment before its own."""
    return data[:2] + segment(marker, body) + data[2:]


def frame_at(data):
    return max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))


PLAIN = encoded(picture(33, 47))
PROGRESSIVE = encoded(picture(33, 47), progressive=True)
PROFILED = encoded(picture(33, 47), icc_profile=bytes(70_000))
NOT_TURNED = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\1\0\0\0\0\0\0\0"


@settings(max_examples=120, deadline=None)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    seed=st.integers(0, 999),
    mode=st.sampled_from(["RGB", "RGB", "L"]),
    quality=st.integers(1, 100),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    progressive=st.booleans(),
    optimize=st.booleans(),
    restart=st.sampled_from([{}, {"restart_marker_blocks": 1}, {"restart_marker_rows": 1}]),
    comment=st.binary(max_size=20),
    alpha=st.booleans(),
)
def test_the_pixels_are_those_of_pillow(size, seed, mode, quality, subsampling, alpha, restart, **options):
    colours = {"subsampling": subsampling} if mode == "RGB" else {}
    data = encoded(picture(*size, mode, seed), quality=quality, **restart, **colours, **options)
    assert taken(data)
    assert assert_same(data, Wanted(alpha=alpha)).shape == (*size, 4 if alpha else 3)


def test_a_file_of_a_common_kind_is_decoded_without_pillow(monkeypatch):
    monkeypatch.setattr(decoding, "_opened", lambda *_: pytest.fail("Pillow reads the headers"))
    assert jpeg.in_use()[1] == ""
    for data in (PLAIN, PROGRESSIVE, encoded(picture(33, 47, "L")), PROFILED):
        assert decode_image(io.BytesIO(data), "x", "JPEG").shape == (33, 47, 3)


ODD = {
    "two starts": b"\xff\xd8" + PLAIN,
    "fill bytes": PLAIN[:2] + b"\xff\xff\xff" + PLAIN[2:],
    "garbage between segments": PLAIN[:2] + b"abc" + PLAIN[2:],
    "garbage behind the picture": PLAIN + bytes(range(256)),
    "another picture behind it": PLAIN + PROGRESSIVE,
    "no end": PLAIN[:-2],
    "only a start": b"\xff\xd8\xff",
    "no frame": PLAIN[: frame_at(PLAIN)] + PLAIN[PLAIN.index(b"\xff\xda") :],
    "two frames": PLAIN[: frame_at(PLAIN)] + PLAIN[frame_at(PLAIN) : frame_at(PLAIN) + 19] + PLAIN[frame_at(PLAIN) :],
    "no height": PLAIN[: frame_at(PLAIN) + 5] + b"\0\0" + PLAIN[frame_at(PLAIN) + 7 :],
    "a frame cut off": PLAIN[: frame_at(PLAIN)] + segment(0xC0, b"\x08\0\x10\0\x10") + PLAIN[frame_at(PLAIN) :],
    "12 bits": PLAIN[: frame_at(PLAIN) + 4] + b"\x0c" + PLAIN[frame_at(PLAIN) + 5 :],
    "arithmetic coding": PLAIN.replace(b"\xff\xc0", b"\xff\xc9", 1),
    "tall chroma": PLAIN[: frame_at(PLAIN) + 11] + b"\x12" + PLAIN[frame_at(PLAIN) + 12 :],
    "JFIF without numbers": with_segment(PLAIN[:2] + PLAIN[20:], 0xE0, b"JFIF\0\1"),
    "a segment of no length": PLAIN[:2] + b"\xff\xfe\0\0" + PLAIN[2:],
    "many segments": PLAIN[:2] + segment(0xFE) * 300 + PLAIN[2:],
    "half a table": with_segment(PLAIN, 0xDB, b"\0" + bytes(40)),
    "half an ICC profile": with_segment(PLAIN, 0xE2, b"ICC_PROFILE\0"),
    "half of Photoshop's resources": with_segment(PLAIN, 0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
    "Adobe: RGB": with_segment(PLAIN[:2] + PLAIN[20:], 0xEE, b"Adobe\0d\0\0\0\0\0"),
    "Adobe: YCbCr": with_segment(PLAIN[:2] + PLAIN[20:], 0xEE, b"Adobe\0d\0\0\0\0\1"),
    "Adobe: YCCK of three": with_segment(PLAIN[:2] + PLAIN[20:], 0xEE, b"Adobe\0d\0\0\0\0\2"),
    "Adobe: cut off": with_segment(PLAIN, 0xEE, b"Adobe\0"),
    "RGB components": encoded(picture(33, 47), keep_rgb=True),
    "CMYK": encoded(picture(33, 47, "CMYK")),
    "several pictures (MPO)": encoded(picture(33, 47), "MPO", save_all=True, append_images=[picture(33, 47, seed=1)]),
    "a thumbnail in EXIF": with_segment(PLAIN, 0xE1, NOT_TURNED + encoded(picture(9, 9))),
    "turned by EXIF and by XMP": with_segment(
        with_segment(PLAIN, 0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'), 0xE1, NOT_TURNED
    ),
    "turned by XMP": with_segment(PLAIN, 0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'),
    "EXIF that is damaged": with_segment(PLAIN, 0xE1, b"Exif\0\0garbage!"),
    "EXIF that is cut off": with_segment(PLAIN, 0xE1, NOT_TURNED[:20]),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("alpha", [False, True], ids=["RGB", "RGBA"])
def test_odd_files_give_what_pillow_gives(kind, alpha):
    assert_same(ODD[kind], Wanted(alpha=alpha))


@pytest.mark.parametrize(("data", "pieces"), [(PLAIN, 20), (PROGRESSIVE, 20)], ids=["baseline", "progressive"])
def test_cut_off_files_give_what_pillow_gives(data, pieces):
    for piece in range(pieces):
        assert_same(data[: len(data) * piece // pieces])


def test_spoilt_files_give_what_pillow_gives():
    chance = random.Random(0)
    ends = set()
    for data in [PLAIN, PROGRESSIVE, encoded(picture(20, 20, "L"), restart_marker_blocks=1)] * 60:
        spoilt = bytearray(data)
        for _ in range(chance.choice((1, 1, 3))):
            spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.3:
            at = chance.randrange(len(spoilt))
            spoilt[at:at] = bytes((0xFF, chance.randrange(256)))
        ends.add((taken(bytes(spoilt)), isinstance(assert_same(bytes(spoilt)), str)))
    assert ends == {(True, False), (False, False), (False, True)}


@pytest.mark.parametrize("scans", range(1, 10))
def test_a_progressive_picture_without_its_last_scans_is_left_to_pillow(scans):
    """libjpeg-turbo smooths over what is missing, and 2.1 does it otherwise than 3.0."""
    starts = [at for at in range(len(PROGRESSIVE)) if PROGRESSIVE[at : at + 2] == b"\xff\xda"]
    assert len(starts) == 10
    data = PROGRESSIVE[: starts[scans]] + b"\xff\xd9"
    assert not taken(data)
    assert assert_same(data).shape == (33, 47, 3)
    hidden = PROGRESSIVE[: starts[scans]] + segment(0xFE, PROGRESSIVE[starts[scans] : -2][:900]) + b"\xff\xd9"
    assert not taken(hidden)  # a scan inside a comment is none
    assert not taken(data + PROGRESSIVE[starts[scans] :])  # nor is one behind the picture's end


@pytest.mark.parametrize("orientation", range(10))
def test_only_a_picture_that_exif_turns_is_decoded_by_pillow(orientation, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(16, 32), exif=exif)
    assert assert_same(data).shape == ((32, 16, 3) if orientation in (5, 6, 7, 8) else (16, 32, 3))
    pixels = []
    monkeypatch.setattr(jpeg, "_decoded", lambda *arguments: pixels.append(arguments))
    decode_image(io.BytesIO(data), "x", "JPEG")
    assert len(pixels) == (orientation == 1)


def test_what_is_refused_for_its_size_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(jpeg, "_decoded", lambda *_: pytest.fail("decoded"))
    monkeypatch.setenv("CALIB_MAX_IMAGE_PIXELS", "1550")  # 33 x 47 are 1551
    assert "decompression bomb: 47 x 33 pixels, at most 1550" in outcome(PLAIN)
    monkeypatch.delenv("CALIB_MAX_IMAGE_PIXELS")
    last = PROGRESSIVE.rindex(b"\xff\xda")
    assert "a JPEG of over a hundred scans" in outcome(PROGRESSIVE[:-2] + PROGRESSIVE[last:-2] * 100 + b"\xff\xd9")


def test_space_is_taken_before_a_file_is_decoded(monkeypatch):
    steps = []
    monkeypatch.setattr(SPACE, "take", steps.append)
    monkeypatch.setattr(jpeg, "_decoded", lambda *_: steps.append("decoded"))
    outcome(PLAIN)
    assert steps[:2] == [33 * 47, "decoded"]


@pytest.fixture
def other_library(monkeypatch):
    """Puts something else in simplejpeg's place."""

    def put(module):
        monkeypatch.setitem(sys.modules, "simplejpeg", module)
        for found in (jpeg.is_same_as_pillow, jpeg._decoder):
            found.cache_clear()

    yield put
    monkeypatch.undo()
    for found in (jpeg.is_same_as_pillow, jpeg._decoder):
        found.cache_clear()


def test_without_simplejpeg_pillow_decodes_everything(other_library):
    expected = outcome(PLAIN)
    other_library(None)
    assert not taken(PLAIN)
    assert np.array_equal(outcome(PLAIN), expected)
    assert jpeg.in_use()[1].startswith("it cannot be imported: ")


def test_a_kind_whose_pixels_are_not_those_of_pillow_is_left_to_it(other_library):
    """As where Pillow was built with another library than libjpeg-turbo: colours that are subsampled differ."""
    import simplejpeg

    def decode_jpeg(data, colours, **options):
        pixels = simplejpeg.decode_jpeg(data, colours, **options)
        return pixels if common_jpeg(data).kind.sampling in ("grey", "4:4:4") else pixels ^ 1

    expected = outcome(PLAIN)
    other_library(SimpleNamespace(decode_jpeg=decode_jpeg, __version__="0"))
    assert common_jpeg(PLAIN).kind == Kind("4:2:0", progressive=False)
    assert not taken(PLAIN)
    assert np.array_equal(outcome(PLAIN), expected)
    assert taken(encoded(picture(33, 47), subsampling="4:4:4"))
    different = "4:2:2, 4:2:2 progressive, 4:2:0, 4:2:0 progressive"
    assert jpeg.in_use() == ("0", f"its pixels are not those of Pillow's library for {different}")


def test_every_kind_is_tried():
    kinds = itertools.product(("grey", "4:4:4", "4:2:2", "4:2:0"), (False, True))
    assert [jpeg.is_same_as_pillow(Kind(*kind)) for kind in kinds] == [True] * 8
