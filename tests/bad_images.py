"""Ways to spoil an image file, and what is said of each."""

import struct
import zlib

from PIL import Image


def bomb():
    """A PNG of 40,000 x 40,000 pixels that holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def truncated(path):
    path.write_bytes(path.read_bytes()[:60])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("these are no pixels, and there are more than sixteen bytes of them")


def jpeg_named_png(path):
    Image.new("RGB", (8, 8), (200, 0, 0)).save(path, format="JPEG")


def decompression_bomb(path):
    path.write_bytes(bomb())


BAD = {
    truncated: "damaged or truncated PNG file",
    empty: "empty file (0 bytes)",
    text: "not an image: the file begins with",
    jpeg_named_png: "its name says PNG, but it holds JPEG; rename or convert it",
    decompression_bomb: "decompression bomb: 40000 x 40000 pixels",
}
