"""Images of more than 8 bits keep them, and mean what their range says."""

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from datasets import BatchStream, DatasetError, ImageFolder, Preprocessing
from datasets.decoding import AVIF, Wanted, decode_image, decode_pixels, lacks_range
from datasets.errors import UnreadableImageError

RNG = np.random.default_rng(5)


def png_of(pixels, colour_type, depth=16, part=1 << 30):
    """A PNG [H, W, C] of 16 bits, by the standard; the rows use its five filters in turn."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1).astype(int)
    step = channels * depth // 8
    data, above = b"", np.zeros(rows.shape[1], int)
    for i, row in enumerate(rows):
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        corner = np.concatenate([np.zeros(step, int), above[:-step]])
        estimate = left + above - corner
        distances = np.abs(np.stack([left, above, corner]) - estimate)
        nearest = np.choose(distances.argmin(axis=0), [left, above, corner])
        guess = [np.zeros_like(row), left, above, (left + above) // 2, nearest][i % 5]
        data += bytes([i % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        above = row

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    packed = zlib.compress(data)
    pieces = b"".join(chunk(b"IDAT", packed[i : i + part]) for i in range(0, len(packed), part))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pieces + chunk(b"IEND", b"")


def tiff_of(pixels, order):
    """An uncompressed TIFF [H, W, 3 or 4] of 16 bits, by the standard."""
    height, width, channels = pixels.shape
    data = pixels.astype(f"{order}u2").tobytes()
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, 8), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 8 + len(bits)), (277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(data))]
    if channels == 4:
        entries.append((338, 3, 1, 2))
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        packed = struct.pack(
            f"{order}{'HH' if kind == 3 and count == 1 else 'I'}",
            *([value, 0] if kind == 3 and count == 1 else [value]),
        )
        directory += struct.pack(f"{order}HHI", tag, kind, count) + packed
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", 8 + len(bits) + len(data)) + bits + data + directory + bytes(4)


def pixels_of(data, expected, **wanted):
    return decode_pixels(io.BytesIO(data), "x", expected, Wanted(**wanted))


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4)])
def test_colours_of_16_bit_pngs_keep_all_bits(colour_type, channels):
    pixels = RNG.integers(0, 65536, (11, 7, channels)).astype(np.uint16)
    data = png_of(pixels, colour_type)
    assert lacks_range(io.BytesIO(data), "PNG")
    assert np.array_equal(pixels_of(data, "PNG"), pixels[..., :3])
    if channels == 4:
        assert np.array_equal(pixels_of(data, "PNG", alpha=True), pixels)
    assert np.array_equal(decode_image(io.BytesIO(data), "x", "PNG"), pixels[..., :3] >> 8)


def test_grey_with_alpha_of_16_bits_keeps_all_bits():
    pixels = RNG.integers(0, 65536, (11, 7, 2)).astype(np.uint16)
    data = png_of(pixels, 4)
    assert lacks_range(io.BytesIO(data), "PNG")
    assert np.array_equal(pixels_of(data, "PNG"), pixels)
    square = pixels[:8].repeat(2, axis=1)[:, :8]
    found = bound(4, color="rgba", scale=257.0)(square)
    np.testing.assert_allclose(found[[0, 3]], square.transpose(2, 0, 1), rtol=1e-5)


def test_the_pixels_may_be_cut_into_many_parts():
    pixels = RNG.integers(0, 65536, (300, 200, 3)).astype(np.uint16)
    data = png_of(pixels, 2, part=5000)
    assert data.count(b"IDAT") > 50
    assert np.array_equal(pixels_of(data, "PNG"), pixels)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bit_tiffs_keep_all_bits(order, channels):
    pixels = RNG.integers(0, 65536, (5, 9, channels)).astype(np.uint16)
    found = pixels_of(tiff_of(pixels, order), "TIFF", alpha=channels == 4)
    assert np.array_equal(found, pixels)


def test_grey_of_16_bits_keeps_all_bits():
    pixels = RNG.integers(0, 65536, (6, 5)).astype(np.uint16)
    for name, data in (("PNG", png_of(pixels[..., np.newaxis], 0)), ("TIFF", saved(pixels, "TIFF"))):
        found = pixels_of(data, name)
        assert (found.shape, found.dtype) == ((6, 5, 1), np.uint16)
        assert np.array_equal(found[..., 0], pixels)


def tiff_of_12_bits(pixels):
    """A TIFF of grey [H, W] that says 12 bits, two pixels in three bytes, by the standard."""
    height, width = pixels.shape
    left, right = pixels[:, ::2].astype(int), pixels[:, 1::2].astype(int)
    data = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], axis=2).astype(np.uint8).tobytes()
    entries = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    entries.append((279, len(data)))
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def test_a_file_that_says_12_bits_is_taken_at_its_word():
    pixels = RNG.integers(0, 4096, (6, 8)).astype(np.uint16)
    pixels[0, :2] = 0, 4095
    data = tiff_of_12_bits(pixels)
    assert not lacks_range(io.BytesIO(data), "TIFF")
    found = pixels_of(data, "TIFF")[..., 0]
    np.testing.assert_allclose(found / 65535, pixels / 4095, atol=1e-5)
    assert (found.min(), found.max()) == (0, 65535)
    assert np.array_equal(pixels_of(data, "TIFF", any_range=True)[..., 0], pixels)


def saved(pixels, file_format):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format)
    return buffer.getvalue()


def test_eight_bits_stay_eight_bits():
    pixels = RNG.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    data = saved(pixels, "PNG")
    assert not lacks_range(io.BytesIO(data), "PNG")
    assert np.array_equal(pixels_of(data, "PNG"), pixels)
    assert pixels_of(data, "PNG").dtype == np.uint8
    assert not lacks_range(io.BytesIO(b"\x89PNG\r\n\x1a\nbroken"), "PNG")


def test_numbers_without_a_range_are_unreadable_until_it_is_stated():
    for pixels in (np.array([[-1024, 3071]], np.int32), np.array([[0.5, 2.5]], np.float32)):
        data = saved(pixels, "TIFF")
        with pytest.raises(UnreadableImageError, match=r"pixel_range = \[lowest, highest\]"):
            pixels_of(data, "TIFF")
        assert np.array_equal(pixels_of(data, "TIFF", any_range=True)[..., 0], pixels)


def bound(channels=3, dtype="float32", **fields):
    described = Preprocessing(**{"resize": "stretch", **fields})
    return described.bound_to([None, channels, 8, 8], dtype)


def test_a_stated_range_fills_the_input_without_rounding():
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8, 1) * 65  # 0..4095
    found = bound(pixel_range=(0, 4095))(pixels)
    np.testing.assert_allclose(found, np.broadcast_to(pixels[..., 0] / 4095, (3, 8, 8)), rtol=3e-7)
    assert len(np.unique(found)) == 64  # 8 bits would leave 5 of them, or 17 if the range were unknown
    grey = bound(1, color="grey", pixel_range=(0, 4095))(pixels)
    np.testing.assert_allclose(grey[0], pixels[..., 0] / 4095, rtol=1e-6)


def test_a_window_cuts_off_what_lies_beyond_it():
    hounsfield = np.full((8, 8, 1), -2000, np.int32)
    hounsfield[0, :4, 0] = -1000, -300, 400, 3000
    found = bound(pixel_range=(-1000, 400))(hounsfield)[0]
    np.testing.assert_allclose(found[0, :5], [0, 0.5, 1, 1, 0], atol=1e-6)


def test_16_bits_without_a_range_are_all_of_16_bits():
    pixels = RNG.integers(0, 65536, (8, 8, 3)).astype(np.uint16)
    np.testing.assert_allclose(bound()(pixels), pixels.transpose(2, 0, 1) / 65535, rtol=3e-7, atol=1e-9)


def test_many_bits_are_resized_and_normalised_as_eight_are():
    """Values that 8 bits can hold give what the 8-bit image gives, but for Pillow's rounding of bytes."""
    eight = RNG.integers(0, 256, (31, 23, 3)).astype(np.uint8)
    sixteen = eight.astype(np.uint16) * 257
    for fields in ({"resize": "stretch"}, {"resize": "crop"}, {"resize": "letterbox"}, {"color": "bgr"}):
        described = bound(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), **fields)
        assert np.abs(described(eight) - described(sixteen)).max() <= 1.01 / 255 / 0.2
    same = RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8)  # not resized at all
    np.testing.assert_allclose(bound()(same), bound()(same.astype(np.uint16) * 257), rtol=3e-7)


def test_uint8_models_get_the_nearest_of_256_values():
    pixels = np.array([0, 128, 129, 65535], np.uint16).repeat(48).reshape(8, 8, 3)
    found = bound(dtype="uint8", scale=1.0)(pixels)
    assert sorted(set(found.ravel().tolist())) == [0, 1, 255]


def test_a_folder_of_8_and_16_bits_becomes_one_batch(tmp_path):
    value = 100
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(png_of(np.full((8, 8, 3), value * 257, np.uint16), 2))
    folder = ImageFolder(tmp_path)
    assert [folder.lacks_range(i) for i in range(2)] == [False, True]
    (batch,) = BatchStream(folder, preprocessing=bound())
    np.testing.assert_allclose(batch.inputs["input"], value / 255, rtol=1e-6)


@pytest.mark.parametrize("channel", range(4))
def test_four_channels_keep_alpha_and_resize_it_alone(channel):
    """Pillow multiplies colours by alpha when it resizes; a model's fourth channel is a channel like the others."""
    image = np.zeros((16, 16, 4), np.uint8)
    image[..., channel] = RNG.integers(0, 256, (16, 16))
    found = bound(4, color="rgba")(image)
    alone = np.asarray(Image.fromarray(image[..., channel]).resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(found[channel], (alone / np.float32(255)).astype(np.float32))
    assert not np.delete(found, channel, axis=0).any()
    assert np.array_equal(bound(4, color="bgra")(image)[[2, 1, 0, 3]], found)


def test_what_has_no_alpha_is_opaque(tmp_path):
    Image.new("RGB", (8, 8), (9, 8, 7)).save(tmp_path / "a.png")
    Image.new("RGBA", (8, 8), (9, 8, 7, 6)).save(tmp_path / "b.png")
    Image.new("LA", (8, 8), (9, 6)).save(tmp_path / "c.png")
    (batch,) = BatchStream(ImageFolder(tmp_path), preprocessing=bound(4, color="rgba", scale=1.0))
    assert batch.inputs["input"][:, :, 0, 0].tolist() == [[9, 8, 7, 255], [9, 8, 7, 6], [9, 9, 9, 6]]


def test_a_range_is_two_numbers_in_order(tmp_path):
    for wrong in ((4095, 0), (1, 1), (1,), ("a", 2), (0, float("inf"))):
        with pytest.raises(DatasetError, match="pixel_range: expected"):
            Preprocessing(pixel_range=wrong)
    (tmp_path / "p.toml").write_text('preset = "unit"\npixel_range = 4095\n')
    assert Preprocessing.from_spec(str(tmp_path / "p.toml")).pixel_range == (0, 4095)
    (tmp_path / "p.toml").write_text(Preprocessing("a", pixel_range=(-1000, 400), antialias=False).to_toml())
    read = Preprocessing.from_spec(str(tmp_path / "p.toml"))
    assert (read.pixel_range, read.antialias) == ((-1000, 400), False)


def test_later_keys_leave_older_digests_as_they_were():
    plain = Preprocessing.preset("imagenet")
    assert not {"antialias", "pixel_range"} & plain.to_dict().keys()
    changed = [replace(plain, antialias=False), replace(plain, pixel_range=(0, 4095))]
    assert len({each.digest() for each in [plain, *changed]}) == 3
    assert plain.digest() == "0aba35963bcd8d910b135ebdcfea410d7b99318aa8fd9bdfbdbc9b10f1ba61d2"


@pytest.mark.skipif(AVIF is None, reason="this Pillow reads no AVIF")
def test_avif_is_read_where_pillow_reads_it(tmp_path):
    Image.new("RGB", (16, 12), (200, 100, 50)).save(tmp_path / "a.avif", quality=95)
    folder = ImageFolder(tmp_path)
    assert folder.names == ("a.avif",)
    assert np.abs(folder.read(0).astype(int) - (200, 100, 50)).max() <= 4
    (tmp_path / "a.avif").rename(tmp_path / "a.png")
    with pytest.raises(UnreadableImageError, match="its name says PNG, but it holds AVIF; rename or convert it"):
        ImageFolder(tmp_path).read(0)
