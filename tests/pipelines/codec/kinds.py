"""JPEGs of all kinds, whole and damaged, by name."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image


def draw(width: int, height: int, seed: int) -> np.ndarray:
    """Returns a smooth image with some noise, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9 + seed), np.cos(y / 7 + 2 * seed), np.sin((x + y) / 11 + 3 * seed)], -1)
    noise = np.random.default_rng(seed).normal(0, 9, waves.shape)
    return np.clip(127 + 100 * waves + noise, 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray | Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields (marker, begin, end) of the segments before the first scan, and of the rest as one."""
    at = 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], at, end
        at = end
    yield 0xDA, at, len(data)


def without(data: bytes, marker: int, keep: int = 0) -> bytes:
    """Returns the JPEG without its segments of a marker, except for the first ``keep``."""
    out, found = data[:2], 0
    for name, begin, end in segments(data):
        found += name == marker
        if name != marker or found <= keep:
            out += data[begin:end]
    return out


def taller(data: bytes, rows: int) -> bytes:
    """Returns the JPEG with another height in its header."""
    at = next(begin for marker, begin, _ in segments(data) if 0xC0 <= marker <= 0xC2) + 5
    return data[:at] + struct.pack(">H", rows) + data[at + 2 :]


def scans(data: bytes) -> list[int]:
    """Returns the positions of the start-of-scan markers, which do not occur in the drawn data by chance."""
    return [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]


def whole() -> dict[str, bytes]:
    image, other = draw(90, 70, 1), draw(64, 100, 2)
    return {
        "baseline": jpeg(image),
        "4:4:4": jpeg(other, subsampling=0, quality=97),
        "4:2:2": jpeg(image, subsampling=1, quality=40),
        "optimised": jpeg(other, quality=30, optimize=True),
        "flat, optimised": jpeg(np.full((40, 50, 3), 77, np.uint8), optimize=True),
        "progressive": jpeg(image, progressive=True, quality=60),
        "grey": jpeg(Image.fromarray(image).convert("L"), optimize=True),
        "cmyk": jpeg(Image.fromarray(other).convert("CMYK")),
        "cmyk without Adobe's marker": without(jpeg(Image.fromarray(image).convert("CMYK")), 0xEE),
        "rgb": jpeg(image, keep_rgb=True),
        "restart": jpeg(image, restart_marker_blocks=3),
        "motion jpeg": without(jpeg(image, quality=85), 0xC4),
        "motion jpeg, grey": without(jpeg(Image.fromarray(other).convert("L")), 0xC4),
        "motion jpeg, some tables": without(jpeg(image, quality=85), 0xC4, keep=1),
        "many tables": jpeg(image, qtables=[[n % 90 + 1 for n in range(64)], [9] * 64]),
    }


def damaged() -> dict[str, bytes]:
    good = whole()
    plain, restart, progressive = good["baseline"], good["restart"], good["progressive"]
    middle = len(plain) * 6 // 10
    swapped = bytearray(restart)
    swapped[restart.index(b"\xff\xd1") + 1], swapped[restart.index(b"\xff\xd2") + 1] = 0xD2, 0xD1
    last = scans(progressive)[-1]
    return {
        "cut": plain[:middle],
        "cut, with end marker": plain[:middle] + b"\xff\xd9",
        "cut, then another": plain[:middle] + good["optimised"],
        "taller": taller(plain, 104),
        "taller, restart": taller(restart, 104),
        "restart marker missing": restart.replace(b"\xff\xd3", b"", 1),
        "restart marker twice": restart.replace(b"\xff\xd4", b"\xff\xd4\xff\xd4", 1),
        "restart markers swapped": bytes(swapped),
        "restart marker between": plain[:middle] + b"\xff\xd0" + plain[middle:],
        "restart markers without interval": without(restart, 0xDD),
        "zeros": plain[:middle] + bytes(len(plain) - middle - 2) + b"\xff\xd9",
        "overwritten": plain[:middle] + b"\xff\x3c" * 20 + plain[middle + 40 :],
        "progressive, cut": progressive[: len(progressive) // 2],
        "progressive, cut before a scan": progressive[:last],
        "progressive, cut in a scan, with end marker": progressive[: last + 30] + b"\xff\xd9",
        "no quantisation tables": without(plain, 0xDB),
        "one quantisation table": without(plain, 0xDB, keep=1),
        "progressive without tables": without(progressive, 0xC4),
        "no frame": without(plain, 0xC0),
        "header only": plain[: scans(plain)[0]],
        "not a JPEG": b"\xff\xd8\xff" + b"nothing" * 9,
        "empty": b"",
    }
