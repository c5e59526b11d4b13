"""Recognises files by their first bytes. File names decide only where they state a known format."""

from __future__ import annotations

import re

HEAD_BYTES = 512
"""How many bytes these functions need at most."""

_SVG = b"(?:\xef\xbb\xbf)?\\s*(?:<\\?xml[^>]*>\\s*)?(?:<!--(?:(?!-->).)*-->\\s*)*(?:<!DOCTYPE svg[^>]*>\\s*)?<svg[\\s>]"
_FIRST_BYTES = (  # in order; the first match counts
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"RIFF....WEBP", "WebP"),
    (b"(?:II\\*\0|MM\0\\*|II\\+\0|MM\0\\+)", "TIFF"),
    (b"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
    (b"P[1-7][ \t\r\n#]", "PNM"),
    (b"P[Ff][ \t\r\n]", "PFM"),
    (b"\0\0\0.ftypavi[fs]", "AVIF"),
    (b"\0\0\0.ftyp(?:mif1|msf1|miaf).{0,64}avif", "AVIF"),
    (b"\0\0\0.ftyp(?:he[ivm][cxms]|mif1|msf1|miaf)", "HEIC"),
    (b"\0\0\0.ftypcrx ", "Canon raw"),
    (b"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a", "JPEG XL"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"FUJIFILMCCD-RAW|IIR[OS]\x08\0\0\0|IIU\0", "camera raw"),
    (b"8BPS\0[\1\2]", "Photoshop"),
    (b"\0\0[\1\2]\0[^\0]\0.{3}\0", "ICO"),
    (b"icns", "ICNS"),
    (b"v/1\1", "OpenEXR"),
    (b"#\\?(?:RADIANCE|RGBE)", "Radiance HDR"),
    (b"DDS \\|\0\0\0", "DDS"),
    (b"qoif", "QOI"),
    (b"\1\xda[\0\1][\1\2]", "SGI"),
    (b"\x0a[\0\2\3\4\5]\1[\1\2\4\x08]", "PCX"),
    (b"\x59\xa6\x6a\x95", "Sun raster"),
    (b"SIMPLE  =", "FITS"),
    (b".{128}DICM", "DICOM"),
    (_SVG, "SVG"),
)
_IMAGES = [(re.compile(pattern, re.DOTALL), kind) for pattern, kind in _FIRST_BYTES]
_COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))


def image_kind(head: bytes) -> str:
    """Returns the format of an image whose file begins so, e.g. "JPEG 2000"; "" if it is no image.

    The format need not be one that the codec decodes.
    """
    return next((kind for pattern, kind in _IMAGES if pattern.match(head)), "")


def is_image_head(head: bytes) -> bool:
    """Whether a file that begins so is an image of any known format."""
    return bool(image_kind(head))


def compression(head: bytes) -> str:
    """Returns gzip, bzip2, xz or zstd for a compressed file that begins so, else ""."""
    return next((kind for magic, kind in _COMPRESSED if head.startswith(magic)), "")


def archive_kind(head: bytes) -> str:
    """Returns tar, zip, parquet, 7z, rar or a compression for a file that begins so, else ""."""
    if head.startswith((b"PK\3\4", b"PK\5\6", b"PK00PK\3\4")):
        return "zip"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"7z\xbc\xaf\x27\x1c"):
        return "7z"
    if head.startswith(b"Rar!\x1a\x07"):
        return "rar"
    return compression(head) or ("tar" if is_tar_header(head) else "")


def is_tar_header(block: bytes) -> bool:
    """Whether a block of 512 bytes is the header of a tar's member: whether its checksum is right."""
    if len(block) < 512:
        return False
    text = block[148:156].strip(b" \0")
    stated = int(text, 8) if text.isdigit() and not text.strip(b"01234567") else -1
    total = sum(block) - sum(block[148:156]) + 8 * 32  # the checksum itself counts as spaces
    if stated == total:
        return True
    # Old implementations of tar sum signed bytes.
    return stated == total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
