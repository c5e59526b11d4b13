"""Reads and writes JPEG and other images: probe, decode, recode, crop.

JPEG is decoded by C++ code (``_native``) on top of libjpeg-turbo, any other format (such as a PNG named .JPEG) by
Pillow. All pixels are uint8 RGB, shape [H, W, 3]. An image that cannot be decoded raises
``imgtool.wordnet.errors.ImageError`` with a one-line reason.

What an image may cost is limited before memory is allocated: 100 million pixels; for a JPEG also 200 scans, 2 billion
pixels times scans, and 64 samples per bit of the file, because a whole JPEG has at least one bit per block. The largest
JPEG takes about 1 GB and a few seconds.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from imgtool.pipelines.codec import _native
from imgtool.pipelines.codec.pillow import MAX_PIXELS, decode_with_pillow, open_with_pillow
from imgtool.wordnet.errors import ImageError, InputError

__all__ = [
    "MAX_PIXELS",
    "Batch",
    "Buffers",
    "Pool",
    "Recoded",
    "center_crop",
    "center_decode",
    "center_geometry",
    "check",
    "decode",
    "encode",
    "open_with_pillow",
    "probe",
    "recode",
    "resize_crop",
]

Pixels = npt.NDArray[np.uint8]
Pool = _native.Pool
Buffers = _native.Buffers
Batch = _native.Batch
STORES = ("jpeg", "jpeg-indexed", "fit", "original", "raw")
RESTART = 4
"""MCUs (64 pixels wide in 4:2:0) between the restart markers of "jpeg-indexed"."""
SUBSAMPLINGS = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}
"""The sampling factors of luma; those of chroma are 1, 1."""


@dataclass(frozen=True)
class Recoded:
    """An image as it is stored.

    Attributes:
        data: a JPEG, or with store "raw" the pixels, uint8 RGB.
        width: the stored width in pixels.
        height: the stored height in pixels.
        source_width: the width of the source image.
        source_height: the height of the source image.
        repairs: what was unusual about the source: png (or another format), cmyk, grayscale, exif, damaged.
        how: "recoded", "passed" (the bytes of the source) or "transcoded" (rewritten without loss).
    """

    data: bytes
    width: int
    height: int
    source_width: int
    source_height: int
    repairs: tuple[str, ...]
    how: str = "recoded"


@contextlib.contextmanager
def _image_errors() -> Iterator[None]:
    try:
        yield
    except _native.NativeImageError as error:
        raise ImageError(_plain(str(error))) from None


def _plain(message: str) -> str:
    # libjpeg's messages for the two most common errors would confuse readers of the manifest
    if message.startswith("Not a JPEG file"):
        return "not an image"
    if message.startswith(("JPEG datastream contains no image", "Empty input file")):
        return "truncated: the data ends before the image begins"
    return message


def _is_jpeg(data: bytes | memoryview) -> bool:
    return bytes(data[:3]) == b"\xff\xd8\xff"


def probe(data: bytes) -> dict[str, Any]:
    """Reads the header of a JPEG: width, height, components, space, progressive, orientation (EXIF), sampling."""
    with _image_errors():
        return dict(_native.probe(data))


def decode(data: bytes, *, short_side: int | None = None, exif: bool = True) -> Pixels:
    """Decodes a whole image of any format to RGB pixels; applies its EXIF orientation unless ``exif`` is false.

    A JPEG is shrunk while decoding, so that its shorter side has at most ``short_side`` pixels. Raises ImageError.
    """
    if not _is_jpeg(data):
        return decode_with_pillow(data, exif)[0]
    with _image_errors():
        pixels: Pixels = _native.decode(data, 0, short_side or 0, exif)[0]
        return pixels


def encode(pixels: Pixels, *, quality: int = 90, subsampling: str = "420") -> bytes:
    """Encodes RGB pixels as a baseline JPEG. Raises InputError if ``quality`` is not from 1 to 100."""
    _check_quality(quality)
    with _image_errors():
        return _native.encode(pixels, quality, SUBSAMPLINGS[subsampling], 0)


def check(data: bytes) -> tuple[int, int]:
    """Checks a JPEG by decoding it, and returns its width and height. Raises ImageError if any part is damaged."""
    with _image_errors():
        pixels, damaged = _native.decode(data, 0, 0, False)
    if damaged:
        raise ImageError("the JPEG data is damaged")
    if not _native.has_end(data):
        raise ImageError("the JPEG's end marker is missing")
    return pixels.shape[1], pixels.shape[0]


def recode(
    data: bytes,
    *,
    max_side: int = 0,
    short_side: int = 0,
    quality: int = 90,
    exif: bool = True,
    store: str = "jpeg",
    subsampling: str = "420",
) -> Recoded:
    """Converts an image of any format to the form in which it is stored: shrunk (never enlarged), as baseline JPEG.

    The planes of a YCbCr image are decoded, resized (antialiased bilinear) and encoded separately. The pixels are
    converted to RGB only if necessary: for CMYK, RGB, an EXIF orientation, and the store "raw".

    Args:
        data: the bytes of the file.
        max_side: the limit of the longer side in pixels; 0 for no limit.
        short_side: the limit of the shorter side in pixels; 0 for no limit.
        quality: libjpeg's quality, 1 to 100.
        exif: whether to apply the EXIF orientation.
        store: one of

            - "jpeg": encodes every image again.
            - "jpeg-indexed": the same, with a restart marker every few MCUs. Files are about 1 % larger, and the native
              loader decodes only the restart intervals that a crop needs.
            - "fit": keeps an undamaged JPEG that is within the limits and needs no rotation. A complete, baseline YCbCr
              image of common subsampling is stored unchanged; a progressive one, one of uncommon subsampling, and one
              without Huffman tables or end marker is rewritten without loss. Quality and subsampling are those of the
              source.
            - "original": keeps every undamaged JPEG that is YCbCr or grayscale and needs no rotation, progressive or
              not, unless its sampling factors are ones that most readers refuse (3 : 2). One without Huffman tables or
              end marker is rewritten without loss. The limits must be 0.
            - "raw": stores the pixels, uint8 [H, W, 3].
        subsampling: the chroma subsampling, "420", "422" or "444".

    Raises:
        ImageError: the image cannot be decoded.
        InputError: an unknown ``store`` or ``subsampling``, a ``quality`` outside 1 to 100, or limits with "original".
    """
    if store not in STORES or subsampling not in SUBSAMPLINGS:
        raise InputError(
            f"store must be one of {', '.join(STORES)} and subsampling one of {', '.join(SUBSAMPLINGS)}, "
            f"not {store!r} and {subsampling!r}"
        )
    _check_quality(quality)
    if store == "original" and (max_side or short_side):
        raise InputError("store original keeps the sizes of the source: set max_side and short_side to 0")
    if not data:
        raise ImageError("empty")
    if not _is_jpeg(data):
        return _recode_other(data, max_side, short_side, quality, exif, store, subsampling)
    if store == "raw":
        return _recode_raw(data, max_side, short_side, exif)
    with _image_errors():
        recoded, width, height, damaged, how, header = _native.recode(
            data,
            max_side,
            short_side,
            quality,
            exif,
            store if store in ("fit", "original") else "none",
            SUBSAMPLINGS[subsampling],
            RESTART if store == "jpeg-indexed" else 0,
        )
    return Recoded(recoded, width, height, header["width"], header["height"], _repairs(header, exif, damaged), how)


def _check_quality(quality: int) -> None:
    if not 1 <= quality <= 100:
        raise InputError(f"quality must be from 1 to 100, not {quality}")


def _repairs(header: dict[str, Any], exif: bool, damaged: bool) -> tuple[str, ...]:
    repairs = []
    if header["space"] in ("cmyk", "ycck"):
        repairs.append("cmyk")
    if header["space"] == "grayscale":
        repairs.append("grayscale")
    if exif and header["orientation"] > 1:
        repairs.append("exif")
    if damaged:
        repairs.append("damaged")
    return tuple(repairs)


def _recode_raw(data: bytes, max_side: int, short_side: int, exif: bool) -> Recoded:
    with _image_errors():
        header = _native.probe(data)
        pixels, damaged = _native.decode(data, max_side, short_side, exif)
    height, width = pixels.shape[:2]
    repairs = _repairs(header, exif, damaged)
    return Recoded(pixels.tobytes(), width, height, header["width"], header["height"], repairs)


def resize_crop(
    pixels: Pixels,
    box: tuple[int, int, int, int],
    resized: tuple[int, int],
    window: tuple[int, int] = (0, 0),
    size: tuple[int, int] | None = None,
    flip: bool = False,
) -> Pixels:
    """Crops a box, resizes it, and returns a window of the result.

    The resize is antialiased bilinear and equal to Pillow's ``crop().resize(BILINEAR)``, except for differences of at
    most 1/255 where Pillow resamples columns before rows.

    Args:
        pixels: uint8 [H, W, 3].
        box: x, y, width and height of the box.
        resized: width and height to resize the box to.
        window: x and y of the window in the resized box.
        size: width and height of the window; None for ``resized``.
        flip: whether to mirror the result horizontally.

    Raises:
        ImageError: the box or the window is not inside the image.
    """
    width, height = size or resized
    crop = np.clip(np.array([*box, *resized, *window, flip], object), -(2**31), 2**31 - 1).astype(np.int32)
    with _image_errors():
        out: Pixels = _native.resize(pixels, crop, width, height)
        return out


def center_geometry(width: npt.ArrayLike, height: npt.ArrayLike, size: int) -> npt.NDArray[np.int32]:
    """Returns the crops of the validation transform, int32 [N, 9]: x, y, w, h, resized w, h, window x, y, flip.

    Resizes the short side to ``size``, rounds the long side down, and keeps the centre, as torchvision's
    ``Resize(size)`` and ``CenterCrop(size)`` do.
    """
    w = np.atleast_1d(np.asarray(width, np.int64))
    h = np.atleast_1d(np.asarray(height, np.int64))
    short = np.minimum(w, h)
    resized_w, resized_h = size * w // short, size * h // short
    # rint rounds half to even, like Python's round(), which torchvision uses
    window_x = np.rint((resized_w - size) / 2).astype(np.int64)
    window_y = np.rint((resized_h - size) / 2).astype(np.int64)
    zero = np.zeros_like(w)
    return np.stack([zero, zero, w, h, resized_w, resized_h, window_x, window_y, zero], 1).astype(np.int32)


def center_crop(pixels: Pixels, size: int) -> Pixels:
    """Applies the validation transform to pixels: resizes the short side to ``size`` (bilinear, antialiased), crops the
    centre. Returns [size, size, 3]."""
    height, width = pixels.shape[:2]
    crop = center_geometry(width, height, size)[0]
    with _image_errors():
        out: Pixels = _native.resize(pixels, crop, size, size)
        return out


def center_decode(data: bytes, size: int) -> Pixels:
    """Applies the validation transform to an image file of any format, after the EXIF orientation: [size, size, 3].

    A JPEG without EXIF rotation is decoded as in the native loader, and the pixels are equal: colours are converted
    after resizing. All other images, and damaged ones that a loader would refuse, are decoded completely for
    ``center_crop``.
    """
    if _is_jpeg(data):
        header = probe(data)
        if header["orientation"] <= 1:
            width, height = header["width"], header["height"]
            out = np.empty((1, size, size, 3), np.uint8)
            one = np.zeros(1, np.uint8)
            batch = Batch(
                _own_pool(),
                Buffers([data]),
                one.astype(np.int32),
                one.astype(np.uint64),
                np.array([len(data)], np.uint64),
                one,
                np.array([[width, height]], np.int32),
                center_geometry(width, height, size),
                out,
            )
            if not batch.wait():
                return out[0]
    return center_crop(decode(data), size)


def _own_pool() -> Pool:
    """Returns the calling thread's pool, made once because starting one takes as long as a small image."""
    if not hasattr(_of_this_thread, "pool"):
        _of_this_thread.pool = Pool(1)
    pool: Pool = _of_this_thread.pool
    return pool


_of_this_thread = threading.local()


def _recode_other(
    data: bytes, max_side: int, short_side: int, quality: int, exif: bool, store: str, subsampling: str
) -> Recoded:
    pixels, repairs = decode_with_pillow(data, exif)
    source_height, source_width = pixels.shape[:2]
    width, height = _native.target_size(max_side, short_side, source_width, source_height)
    if (width, height) != (source_width, source_height):
        pixels = resize_crop(pixels, (0, 0, source_width, source_height), (width, height))
    if store == "raw":
        stored = pixels.tobytes()
    else:
        with _image_errors():
            stored = _native.encode(
                pixels, quality, SUBSAMPLINGS[subsampling], RESTART if store == "jpeg-indexed" else 0
            )
    return Recoded(stored, width, height, source_width, source_height, tuple(repairs))
