"""Files are recognised by their first bytes."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from imgtool.pipelines.archives.magic import HEAD_BYTES, archive_kind, image_kind, is_image_head

WRITTEN = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "GIF": "GIF",
    "BMP": "BMP",
    "TIFF": "TIFF",
    "PPM": "PNM",
    "ICO": "ICO",
    "PCX": "PCX",
    "SGI": "SGI",
    "DDS": "DDS",
    "WEBP": "WebP",
    "AVIF": "AVIF",
    "JPEG2000": "JPEG 2000",
}


@pytest.mark.parametrize("form", WRITTEN)
def test_what_pillow_writes(form):
    buffer = io.BytesIO()
    if form in ("AVIF", "WEBP", "JPEG2000") and not features.check({"JPEG2000": "jpg_2000"}.get(form, form.lower())):
        pytest.skip(f"this Pillow cannot write {form}")
    Image.new("RGB", (16, 16)).save(buffer, form)
    assert image_kind(buffer.getvalue()[:HEAD_BYTES]) == WRITTEN[form]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"8BPS\0\1" + bytes(20), "Photoshop"),
        (b"P5\n# comment\n2 2\n255\n", "PNM"),
        (b"<?xml version='1.0'?>\n<svg xmlns=''>", "SVG"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"", ""),
        (b"\0" * 512, ""),
        (b"<!DOCTYPE html><html>", ""),
        (b"BMW is a make of cars, not an image", ""),
        (b"P4ssword", ""),
        (b"Phi is a letter", ""),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", ""),
        (b"RIFF\0\0\0\0WAVEfmt ", ""),
        (b"%PDF-1.7", ""),
        (b"PK\3\4", ""),
    ],
)
def test_other_files(head, kind):
    assert image_kind(head) == kind
    assert is_image_head(head) == bool(kind)


@given(st.binary(max_size=HEAD_BYTES))
def test_any_bytes(head):
    assert isinstance(image_kind(head), str) and isinstance(archive_kind(head), str)


def test_archives():
    assert archive_kind(tarfile.TarInfo("a").tobuf(tarfile.USTAR_FORMAT)) == "tar"
    signed = bytearray(tarfile.TarInfo("ä").tobuf(tarfile.USTAR_FORMAT, "latin-1"))
    total = sum(byte if byte < 128 else byte - 256 for byte in signed) - sum(signed[148:156]) + 256
    signed[148:156] = b"%06o\0 " % total
    assert archive_kind(bytes(signed)) == "tar"
    assert archive_kind(b"PK\3\4") == "zip" and archive_kind(b"\x1f\x8b\x08") == "gzip"
    assert archive_kind(b"x" * 512) == archive_kind(b"PAR") == ""
