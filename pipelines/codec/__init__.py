"""JPEG and other images, in and out: probe, decode, recode, crop.

JPEG goes through C++ (``_native``) over libjpeg-turbo; anything else (a PNG named .JPEG) through Pillow.
All pixels are uint8 RGB, shape [H, W, 3]. Whatever cannot be decoded raises
:class:`~imgtool.wordnet.errors.ImageError` with one line that says why.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from imgtool.pipelines.codec import _native
from imgtool.wordnet.errors import ImageError, InputError

if TYPE_CHECKING:
    from PIL import Image  # its import takes a while, and most images do without

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
"""MCUs (64 pixels in 4:2:0) between the restart markers of "jpeg-indexed"."""
SUBSAMPLINGS = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}
"""Luma's sampling factors where chroma's are 1, 1."""

MAX_PIXELS = 100_000_000
"""Larger images are refused before memory is taken; the C++ code holds JPEG to the same limit."""


@dataclass(frozen=True)
class Recoded:
    """An image as it is stored: ``data`` of ``width`` x ``height`` pixels, a JPEG or (store "raw") uint8 RGB.

    ``repairs`` names what was unusual about the source: png (or another format), cmyk, grayscale, exif, damaged.
    ``how``: "recoded", "passed" (the source's own bytes) or "transcoded" (rewritten without loss).
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
    # libjpeg's own words for the two commonest troubles would puzzle a reader of the manifest
    if message.startswith("Not a JPEG file"):
        return "not an image"
    if message.startswith(("JPEG datastream contains no image", "Empty input file")):
        return "truncated: the data ends before the image begins"
    return message


def _is_jpeg(data: bytes | memoryview) -> bool:
    return bytes(data[:3]) == b"\xff\xd8\xff"


def probe(data: bytes) -> dict[str, Any]:
    """What a JPEG's header says: width, height, components, space, progressive, orientation (EXIF), sampling."""
    with _image_errors():
        return dict(_native.probe(data))


def decode(data: bytes, *, short_side: int | None = None, exif: bool = True) -> Pixels:
    """The whole image in any format as RGB pixels, turned upright where EXIF says so unless ``exif`` is false.

    A JPEG is shrunk while it is decoded so that its shorter side is at most ``short_side``.
    """
    if not _is_jpeg(data):
        return _decode_other(data, exif)[0]
    with _image_errors():
        pixels: Pixels = _native.decode(data, 0, short_side or 0, exif)[0]
        return pixels


def encode(pixels: Pixels, *, quality: int = 90, subsampling: str = "420") -> bytes:
    """RGB pixels as a baseline JPEG. Raises InputError for a ``quality`` that is not 1 to 100."""
    _check_quality(quality)
    with _image_errors():
        return _native.encode(pixels, quality, SUBSAMPLINGS[subsampling], 0)


def check(data: bytes) -> tuple[int, int]:
    """Decodes a JPEG to see that it is whole; its width and height. Raises ImageError if any of it is damaged."""
    with _image_errors():
        pixels, damaged = _native.decode(data, 0, 0, False)
    if damaged:
        raise ImageError("the JPEG data is damaged")
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
    """An image of any format as it is stored: shrunk (never enlarged) and encoded as baseline JPEG.

    ``max_side`` and ``short_side`` bound the longer and the shorter side in pixels; 0 is no bound. ``quality`` is
    libjpeg's 1..100, ``subsampling`` of chroma "420", "422" or "444". Raises ImageError; InputError for another
    ``store``, ``quality`` or ``subsampling``. ``store``:

    - "jpeg" encodes every image anew; "jpeg-indexed" too, with a restart marker every few MCUs: about 1 % larger,
      and the native loader decodes only what lies between those that a crop needs.
    - "fit" passes on a JPEG within the bounds that needs no turning: as it is if it is whole, YCbCr, baseline and of
      common subsampling, and rewritten without loss if it is progressive or of uncommon sampling. Quality and
      subsampling then stay the source's. Whole is judged by its markers: damage between them is passed on too.
    - "original" passes on every whole JPEG that is YCbCr or grayscale and needs no turning, progressive or not; the
      bounds must be 0.
    - "raw" stores the pixels, uint8 [H, W, 3].

    Pixels never leave YCbCr unless they must (CMYK, RGB, EXIF-turned, raw): planes are decoded, resized (antialiased
    bilinear) and encoded one by one.
    """
    if store not in STORES or subsampling not in SUBSAMPLINGS:
        raise InputError(f"no store {store!r} with subsampling {subsampling!r}: {STORES}, {tuple(SUBSAMPLINGS)}")
    _check_quality(quality)
    if store == "original" and (max_side or short_side):
        raise InputError("store original keeps the sizes of the source: no bound on a side goes with it")
    if not data:
        raise ImageError("empty")
    if not _is_jpeg(data):
        return _recode_other(data, max_side, short_side, quality, exif, store, subsampling)
    if store == "raw":
        return _recode_raw(data, max_side, short_side, exif)
    if store == "original":
        with _image_errors():
            header = _native.probe(data)
            if _passes(data, header, exif):
                repairs = ("grayscale",) if header["space"] == "grayscale" else ()
                size = header["width"], header["height"]
                return Recoded(data, *size, *size, repairs, "passed")
    with _image_errors():
        recoded, width, height, damaged, how, header = _native.recode(
            data,
            max_side,
            short_side,
            quality,
            exif,
            store == "fit",
            SUBSAMPLINGS[subsampling],
            RESTART if store == "jpeg-indexed" else 0,
        )
    return Recoded(recoded, width, height, header["width"], header["height"], _repairs(header, exif, damaged), how)


def _check_quality(quality: int) -> None:
    if not 1 <= quality <= 100:
        raise InputError(f"quality is 1 to 100, not {quality}")


def _passes(data: bytes, header: dict[str, Any], exif: bool) -> bool:
    """Whether "original" stores these bytes: any reader can decode them, all of them are there, and they lie
    upright."""
    turned = exif and header["orientation"] > 1
    if turned or header["space"] not in ("ycbcr", "grayscale"):
        return False
    return data.rstrip(b"\0")[-2:] == b"\xff\xd9" or not _native.decode(data, 0, 0, False)[1]


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
    """Crops ``box`` (x, y, w, h), resizes it to ``resized`` (w, h), returns ``size`` (w, h; default all) at ``window``.

    Antialiased bilinear: equal to Pillow's ``crop().resize(BILINEAR)``, but for at most 1/255 where Pillow
    resamples columns before rows.
    """
    width, height = size or resized
    crop = np.array([*box, *resized, *window, flip], np.int32)
    with _image_errors():
        out: Pixels = _native.resize(pixels, crop, width, height)
        return out


def center_geometry(width: npt.ArrayLike, height: npt.ArrayLike, size: int) -> npt.NDArray[np.int32]:
    """The validation transform of images as crops, int32 [N, 9]: x, y, w, h, resized w, h, window x, y, flip.

    The short side is resized to ``size``, the long side rounded down, and the centre kept, as torchvision's
    ``Resize(size)`` and ``CenterCrop(size)`` do it.
    """
    w = np.atleast_1d(np.asarray(width, np.int64))
    h = np.atleast_1d(np.asarray(height, np.int64))
    short = np.minimum(w, h)
    resized_w, resized_h = size * w // short, size * h // short
    # rint rounds half to even, as Python's round() in torchvision
    window_x = np.rint((resized_w - size) / 2).astype(np.int64)
    window_y = np.rint((resized_h - size) / 2).astype(np.int64)
    zero = np.zeros_like(w)
    return np.stack([zero, zero, w, h, resized_w, resized_h, window_x, window_y, zero], 1).astype(np.int32)


def center_crop(pixels: Pixels, size: int) -> Pixels:
    """The validation transform, [size, size, 3]: short side to ``size`` (bilinear, antialiased), centre crop."""
    height, width = pixels.shape[:2]
    crop = center_geometry(width, height, size)[0]
    with _image_errors():
        out: Pixels = _native.resize(pixels, crop, size, size)
        return out


def center_decode(data: bytes, size: int) -> Pixels:
    """The validation transform of an image's file of any format, upright by EXIF: [size, size, 3].

    A JPEG that lies upright goes the native loader's way, to equal pixels: colours are converted last, after resizing.
    All others, and those with damage that a loader would refuse, are decoded as a whole for :func:`center_crop`.
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
    """A native thread for each of ours: made once, as starting one takes as long as a small image."""
    if not hasattr(_of_this_thread, "pool"):
        _of_this_thread.pool = Pool(1)
    pool: Pool = _of_this_thread.pool
    return pool


_of_this_thread = threading.local()


def open_with_pillow(data: bytes | memoryview) -> Image.Image:
    """Pillow's image of these bytes, not yet decoded. Raises OSError, UnidentifiedImageError for what is none."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(data))
    except ModuleNotFoundError as error:  # Ultralytics, once imported, puts itself before it and wants pi_heif
        raise Image.UnidentifiedImageError("cannot identify the image") from error


def _decode_other(data: bytes, exif: bool) -> tuple[Pixels, list[str]]:
    from PIL import Image, ImageOps

    if not data:
        raise ImageError("empty")
    try:
        with open_with_pillow(data) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"{image.width} x {image.height} is larger than {MAX_PIXELS // 1_000_000} million pixels"
                )
            repairs = [(image.format or "unknown").lower()]
            if exif and image.getexif().get(0x0112, 1) not in (0, 1):
                repairs.append("exif")
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I;16"):  # convert() would clip its 16 bits to 255
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return np.asarray(image.convert("RGB")), repairs
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError("not an image") from None
    except Image.DecompressionBombError as error:
        raise ImageError(str(error)) from None
    except Exception as error:
        # Pillow's decoders raise what they like on bad bytes (OSError, SyntaxError, struct.error, ValueError, ...)
        raise ImageError(f"cannot be decoded: {error or type(error).__name__}") from None


def _recode_other(
    data: bytes, max_side: int, short_side: int, quality: int, exif: bool, store: str, subsampling: str
) -> Recoded:
    pixels, repairs = _decode_other(data, exif)
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
