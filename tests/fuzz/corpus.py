"""Draws the seed corpus: JPEGs in every variant that Pillow, cjpeg and jpegtran (if installed) write: corpus.py FOLDER.

Each is small, so that the fuzzers execute many per second. The same variants, damaged, are in kinds.py.
"""

from __future__ import annotations

import io
import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


def run(*command: str, data: bytes) -> Iterator[bytes]:
    done = subprocess.run(command, input=data, capture_output=True)
    if done.returncode == 0:
        yield done.stdout


def draw(folder: Path) -> list[Path]:
    """Writes the corpus to ``folder`` and returns the files. Those of ``crashes`` are in it."""
    folder.mkdir(parents=True, exist_ok=True)
    crashes = [path.read_bytes() for path in sorted((Path(__file__).parent / "crashes").iterdir())]
    images = [*kinds.whole().values(), *kinds.damaged().values(), *by_pillow(), *by_libjpeg(), *crashes]
    paths = []
    for i, data in enumerate(image for image in images if image):
        paths.append(folder / f"{i:03}.jpg")
        paths[-1].write_bytes(data + bytes((i * 31 + k * k) % 256 for k in range(SETTINGS)))
    return paths


if __name__ == "__main__":
    print(f"{len(draw(Path(sys.argv[1])))} seeds")
