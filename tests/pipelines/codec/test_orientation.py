"""EXIF orientation in JPEG, PNG, WebP and TIFF: turned as Pillow, OpenCV and torchvision do where these agree."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from imgtool.pipelines import codec

FORMATS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I"}
"""The integer types of TIFF that fit the field of a tag, and UNDEFINED."""
NAMES = {1: "BYTE", 3: "SHORT", 4: "LONG", 6: "SBYTE", 7: "UNDEFINED", 8: "SSHORT", 9: "SLONG", 13: "IFD"}


def tiff(orientation: int = 6, kind: int = 3, order: str = "<", tag: int = 0x0112) -> bytes:
    value = struct.pack(order + FORMATS[kind], orientation).ljust(4, b"\0")
    start = b"II" if order == "<" else b"MM"
    return start + struct.pack(f"{order}HIHHHI", 42, 8, 1, tag, kind, 1) + value + bytes(4)


def app1(content: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def exif(data: bytes) -> bytes:
    return app1(b"Exif\0\0" + data)


@pytest.fixture(scope="module")
def plain(encoded, draw_image) -> bytes:
    return encoded(draw_image(48, 32), subsampling=0)


def orientation(plain: bytes, *segments: bytes) -> int:
    found: int = codec.probe(plain[:2] + b"".join(segments) + plain[2:])["orientation"]
    return found


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", FORMATS, ids=NAMES.get)
def test_any_integer_type(plain, kind, order):
    for value in range(1, 9):
        want = 1 if kind in (1, 7) and order == ">" else value  # no common reader takes these
        assert orientation(plain, exif(tiff(value, kind, order))) == want
    for value in (0, 9, 100):
        assert orientation(plain, exif(tiff(value, kind, order))) == 1


@pytest.mark.parametrize("kind", [3, 8, 9])
@pytest.mark.parametrize("value", range(1, 9))
def test_pixels_are_turned_as_pillow_does(plain, value, kind):
    data = plain[:2] + exif(tiff(value, kind)) + plain[2:]
    image = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(codec.decode(data), np.asarray(ImageOps.exif_transpose(image)))
    np.testing.assert_array_equal(codec.decode(data, exif=False), np.asarray(image))


XMP = app1(b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>')


@pytest.mark.parametrize(
    "segments, want",
    [
        ([exif(tiff(1)), exif(tiff(6))], 1),
        ([exif(tiff(3)), exif(tiff(6))], 3),
        ([exif(tiff(0)), exif(tiff(6))], 1),
        ([exif(tiff(tag=0x0100)), exif(tiff(6))], 1),
        ([exif(b"no TIFF header"), exif(tiff(6))], 1),
        ([exif(b""), exif(tiff(6))], 6),  # an empty one does not count
        ([XMP, exif(tiff(8))], 8),
        ([XMP], 1),
        ([app1(b"Exif\0\xff" + tiff(6))], 1),
        ([app1(b"other"), exif(tiff(5))], 5),
    ],
)
def test_the_first_exif_segment_counts(plain, segments, want):
    assert orientation(plain, *segments) == want


@pytest.mark.parametrize("cut", range(26))
def test_cut_exif_data_is_ignored(plain, cut):
    assert orientation(plain, exif(tiff(6)[:cut])) in (1, 6)
    assert orientation(plain, exif(tiff(6)[:cut])) == (6 if cut >= 22 else 1)


def test_a_directory_beyond_the_end_is_ignored(plain):
    for at in (26, 5000, 2**31, 2**32 - 1):
        assert orientation(plain, exif(b"II" + struct.pack("<HI", 42, at) + tiff(6)[8:])) == 1


def png_with_exif(image: Image.Image, data: bytes, last: bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    png = buffer.getvalue()
    chunk = struct.pack(">I", len(data)) + b"eXIf" + data + struct.pack(">I", zlib.crc32(b"eXIf" + data))
    at = png.index(b"IEND") - 4 if last else png.index(b"IDAT") - 4
    return png[:at] + chunk + png[at:]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("value", range(1, 9))
def test_png(draw_image, value, last):
    image = Image.fromarray(draw_image(48, 32))
    data = png_with_exif(image, tiff(value, 4, ">"), last)
    recoded = codec.recode(data)
    assert recoded.repairs == (("png", "exif") if value > 1 else ("png",))
    want = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(codec.decode(data), np.asarray(want))
    np.testing.assert_array_equal(codec.decode(data, exif=False), np.asarray(image))
    assert codec.recode(data, exif=False).repairs == ("png",)


@pytest.mark.parametrize("bad", [b"", b"II", b"no TIFF header", b"II" + struct.pack("<HI", 42, 9999), tiff(6)[:15]])
def test_bad_exif_data_does_not_lose_the_image(draw_image, bad):
    image = Image.fromarray(draw_image(48, 32))
    np.testing.assert_array_equal(codec.decode(png_with_exif(image, bad, False)), np.asarray(image))


@pytest.mark.parametrize(
    "form, options", [("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]
)
@pytest.mark.parametrize("value", range(1, 9))
def test_other_formats(draw_image, form, options, value):
    image = Image.fromarray(draw_image(48, 32))
    made = Image.Exif()
    made[0x0112] = value
    buffer = io.BytesIO()
    image.save(buffer, form, exif=made, **options)
    data = buffer.getvalue()
    recoded = codec.recode(data)
    assert recoded.repairs == ((form.lower(), "exif") if value > 1 else (form.lower(),))
    want = image.copy()
    want.getexif()[0x0112] = value
    np.testing.assert_array_equal(codec.decode(data), np.asarray(ImageOps.exif_transpose(want)))
    np.testing.assert_array_equal(codec.decode(data, exif=False), np.asarray(image))
