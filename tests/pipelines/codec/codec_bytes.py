"""Prints a hash of the bytes that each job of the codec makes from each file, as JSON: codec_bytes.py FILE...

Run it under IMGTOOL_ISA, or libjpeg-turbo's JSIMD_FORCENONE and the like, to compare instruction sets.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from imgtool.pipelines import codec
from imgtool.wordnet.errors import ImageError


def jobs(data: bytes, pool: codec.Pool) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yields the name of each job and what it makes from ``data``."""
    yield "decode", lambda: codec.decode(data).tobytes()
    yield "shrink", lambda: codec.decode(data, short_side=41).tobytes()
    for store in codec.STORES:
        for side in (0,) if store == "original" else (0, 70):
            for quality in (1, 90, 100) if store.startswith("jpeg") else (90,):
                for subsampling in codec.SUBSAMPLINGS if store.startswith("jpeg") else ("420",):
                    options = {"store": store, "max_side": side, "quality": quality, "subsampling": subsampling}
                    yield f"recode {options}", partial(recode, data, options)
    try:
        info, pixels = codec.probe(data), codec.decode(data, exif=False)
    except ImageError:
        return
    width, height = info["width"], info["height"]
    boxes = [(0, 0, width, height), (width // 3, height // 4, width - width // 3, height - height // 4)]
    for box in boxes:
        for side in (31, 224):
            for raw, stored in ((0, data), (1, pixels.tobytes())):
                yield f"crop {box} {side} {raw}", partial(crop, pool, stored, raw, (width, height), box, side)
            yield f"resize {box} {side}", partial(resize, pixels, box, side)
    for subsampling in codec.SUBSAMPLINGS:
        yield f"encode {subsampling}", partial(codec.encode, pixels, subsampling=subsampling)


def recode(data: bytes, options: dict[str, Any]) -> bytes:
    return codec.recode(data, **options).data


def resize(pixels: codec.Pixels, box: tuple[int, int, int, int], side: int) -> bytes:
    return codec.resize_crop(pixels, box, (side, side)).tobytes()


def crop(
    pool: codec.Pool, data: bytes, raw: int, dims: tuple[int, int], box: tuple[int, int, int, int], side: int
) -> bytes:
    """Makes a mirrored crop in the way of the loader."""
    out = np.zeros((1, side, side, 3), np.uint8)
    zero, size = np.zeros(1, np.uint64), np.array([len(data)], np.uint64)
    geometry = np.array([[*box, side, side, 0, 0, 1]], np.int32)
    columns = np.array([raw], np.uint8), np.array([dims], np.int32), geometry, out
    errors = codec.Batch(pool, codec.Buffers([data]), np.zeros(1, np.int32), zero, size, *columns).wait()
    return errors[0][1].encode() if errors else out.tobytes()


def main() -> None:
    hashes = {}
    pool = codec.Pool(1)
    for path in map(Path, sys.argv[1:]):
        for name, job in jobs(path.read_bytes(), pool):
            try:
                made = job()
            except ImageError as error:
                made = str(error).encode()
            hashes[f"{path.name}: {name}"] = hashlib.sha256(made).hexdigest()[:16]
    json.dump(hashes, sys.stdout)


if __name__ == "__main__":
    main()
