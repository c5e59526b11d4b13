"""Draws the seed corpus: JPEGs in every variant that Pillow, cjpeg and jpegtran (if installed) write: corpus.py FOLDER.

Each is small, so that the fuzzers execute many per second. The same variants, damaged, are in kinds.py.
"""

from __future__ import annotations

import io
import itertools
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines/codec"))
import kinds

SETTINGS = 16  # bytes after a JPEG that choose what is done with it: execute.hpp
SIZES = [(8, 8), (17, 9), (33, 40), (64, 48)]


def by_pillow() -> Iterator[bytes]:
    for seed, (size, subsampling) in enumerate(itertools.product(SIZES, ["4:4:4", "4:2:2", "4:2:0"])):
        image = kinds.draw(*size, seed)
        for options in (
            *({}, {"optimize": True}, {"progressive": True}, {"quality": 3}, {"quality": 100}),
            *({"restart_marker_blocks": 1}, {"restart_marker_rows": 1, "progressive": True}),
        ):
            yield kinds.jpeg(image, subsampling=subsampling, **options)
        exif = Image.Exif()
        exif[0x0112] = 1 + seed % 8
        yield kinds.jpeg(image, subsampling=subsampling, exif=exif)
    for size in SIZES:
        image = Image.fromarray(kinds.draw(*size, 5))
        for mode, progressive in itertools.product(("L", "CMYK"), (False, True)):
            yield kinds.jpeg(image.convert(mode), progressive=progressive)
        yield kinds.jpeg(image, keep_rgb=True)


def by_libjpeg() -> Iterator[bytes]:
    """Arithmetic coding, uncommon sampling factors, and scans of one component."""
    if shutil.which("cjpeg"):
        ppm = io.BytesIO()
        Image.fromarray(kinds.draw(40, 33, 6)).save(ppm, "PPM")
        factors = ["1x1", "2x1", "1x2", "2x2", "4x1", "1x4", "4x2", "2x4", "3x1", "1x3", "3x2"]  # of luma
        samplings = [*factors, "1x1,2x1,1x2", "2x2,2x1,1x1", "1x1,1x1,2x2", "2x2,2x2,2x2"]
        for sampling, coding in itertools.product(samplings, ([], ["-progressive"], ["-arithmetic"], ["-optimize"])):
            yield from run("cjpeg", "-sample", sampling, *coding, data=ppm.getvalue())
        yield from run("cjpeg", "-arithmetic", "-progressive", data=ppm.getvalue())
    if shutil.which("jpegtran"):
        data = kinds.whole()["baseline"]
        for options in (
            ["-arithmetic"],
            ["-progressive", "-restart", "2b"],
            ["-grayscale"],
            ["-optimize", "-restart", "1"],
        ):
            yield from run("jpegtran", *options, data=data)


def odd() -> Iterator[bytes]:
    """What the drawn images lack: each type of an orientation, refused headers, many scans, large and long codes."""
    good = kinds.whole()
    data, progressive = good["baseline"], good["progressive"]
    for kind, order in itertools.product(range(14), "<>"):
        value = struct.pack(order + "I", 6) if kind in (4, 9, 13) else struct.pack(order + "HH", 6, 0)
        entry = struct.pack(order + "HHI", 0x0112, kind, 1) + value
        tiff = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, 1) + entry + bytes(4)
        yield data[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff + data[2:]
    frame = data.index(b"\xff\xc0")
    yield data[: frame + 4] + b"\x0c" + data[frame + 5 :]  # 12 bits
    yield data[: frame + 5] + b"\xff\xdc\xff\xdc" + data[frame + 9 :]
    sampled = bytearray(kinds.jpeg(kinds.draw(24, 24, 3), subsampling=0))
    frame = sampled.index(b"\xff\xc0")
    sampled[frame + 11], sampled[frame + 14] = 0x31, 0x21
    yield bytes(sampled)
    last = kinds.scans(progressive)[-1]
    yield progressive[:-2] + progressive[last:-2] * 220 + b"\xff\xd9"
    yield kinds.jpeg(kinds.draw(900, 8, 4), quality=5)  # wide
    yield from long_codes()


def long_codes() -> Iterator[bytes]:
    """An end-of-block symbol with a code of 16 bits, and one that does not exist."""
    header = kinds.jpeg(np.full((8, 64), 128, np.uint8))
    header = header[: kinds.scans(header)[0]]
    symbols = [*range(1, 8), *range(0x11, 0x19), 0]  # codes of 1 to 16 bits
    table = b"\xff\xc4\x00\x23\x10" + bytes([1] * 16) + bytes(symbols)
    for code in ("1" * 15 + "0", "1" * 16):
        bits = ("00" + code) * 8
        entropy = int(bits + "1" * (-len(bits) % 8), 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
        yield header + table + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + entropy + b"\xff\xd9"


def run(*command: str, data: bytes) -> Iterator[bytes]:
    done = subprocess.run(command, input=data, capture_output=True)
    if done.returncode == 0:
        yield done.stdout


def draw(folder: Path) -> list[Path]:
    """Writes the corpus to ``folder`` and returns the files. Those of ``crashes`` are in it."""
    folder.mkdir(parents=True, exist_ok=True)
    crashes = [path.read_bytes() for path in sorted((Path(__file__).parent / "crashes").iterdir())]
    images = [*kinds.whole().values(), *kinds.damaged().values(), *by_pillow(), *by_libjpeg(), *odd(), *crashes]
    paths = []
    for i, data in enumerate(image for image in images if image):
        paths.append(folder / f"{i:03}.jpg")
        paths[-1].write_bytes(data + bytes((i * 31 + k * k) % 256 for k in range(SETTINGS)))
    return paths


if __name__ == "__main__":
    print(f"{len(draw(Path(sys.argv[1])))} seeds")
