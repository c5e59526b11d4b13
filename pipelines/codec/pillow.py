"""Decodes images that are not JPEG with Pillow: a PNG named .JPEG, WebP, TIFF, ..."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from imgtool.pipelines.codec import _native
from imgtool.wordnet.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image  # imported only when needed: importing takes time, and most images are JPEG

MAX_PIXELS = 100_000_000
"""Larger images are refused before memory is allocated. The C++ code has the same limit for JPEG."""

FORMATS = {
    *("AVIF", "BMP", "CUR", "DCX", "DDS", "DIB", "FLI", "GIF", "HEIF", "ICNS", "ICO", "IM", "JPEG", "JPEG2000"),
    *("MSP", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "SPIDER", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM"),
}
"""The formats that are decoded, by Pillow's names. Others may start programs (EPS starts Ghostscript) or are no images.
"""

_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC = 0x0112, 0x0102, 0x0106  # tags of TIFF
_UNDONE_BY = {6: 8, 8: 6}  # the other orientations undo themselves
_ROWS = 256  # converted at a time, to save memory

logging.getLogger("PIL").addHandler(logging.NullHandler())  # without a handler, its errors are printed


def open_with_pillow(data: bytes | memoryview) -> Image.Image:
    """Opens an image with Pillow without decoding it. Raises OSError, such as UnidentifiedImageError, on failure.

    Nothing is printed about the image: it is decoded, or its error says why not.
    """
    from PIL import Image

    _silence_libtiff()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # not catch_warnings(), which is not safe with threads
    try:
        return Image.open(io.BytesIO(data), formats=_formats())
    except ModuleNotFoundError as error:  # Ultralytics, once imported, patches Pillow so that it needs pi_heif
        raise Image.UnidentifiedImageError("cannot identify the image") from error


def _formats() -> list[str]:
    """Returns those of FORMATS that this Pillow has, in its order."""
    from PIL import Image

    Image.init()
    return [name for name in Image.ID if name in FORMATS]


@cache
def _silence_libtiff() -> None:
    """Stops libtiff from printing errors, which Pillow raises too. Affects the libtiff in Pillow's wheels."""
    import PIL

    folder = Path(PIL.__file__).parent
    for path in (*folder.parent.glob("pillow.libs/libtiff*"), *folder.glob(".dylibs/libtiff*")):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(str(path)).TIFFSetErrorHandler(None)


def decode_with_pillow(data: bytes, exif: bool) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Decodes the first frame to RGB, uint8 [H, W, 3]; applies its EXIF orientation if ``exif``.

    Transparency is dropped, as in Pillow's and OpenCV's conversions. Samples of more than 8 bits are scaled
    (:func:`_to_eight_bits`). Returns the repairs too: the format, and "exif" if the image was turned.

    Raises:
        ImageError: the image cannot be decoded, or has more than MAX_PIXELS pixels.
    """
    from PIL import Image

    if not data:
        raise ImageError("empty")
    try:
        with open_with_pillow(data) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"{image.width} x {image.height} is larger than {MAX_PIXELS // 1_000_000} million pixels"
                )
            repairs = [(image.format or "unknown").lower()]
            orientation, turn = _orientation(image, exif)
            if exif and orientation > 1:
                repairs.append("exif")
            rgb = _to_eight_bits(image).convert("RGB")
            return np.asarray(rgb if turn == 1 else rgb.transpose(_transposition(turn))), repairs
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError("not an image") from None
    except Image.DecompressionBombError as error:
        raise ImageError(str(error)) from None
    except Exception as error:
        # Pillow's decoders raise many types on bad data (OSError, SyntaxError, struct.error, ValueError, ...)
        raise ImageError(f"cannot be decoded: {error or type(error).__name__}") from None


def _orientation(image: Image.Image, exif: bool) -> tuple[int, int]:
    """Decodes the image. Returns its orientation, and the one that remains to be applied.

    Only EXIF data counts. Pillow would also search XMP, which OpenCV and torchvision do not.
    """
    tags = getattr(image, "tag_v2", None)
    if tags is not None:  # a TIFF: Pillow turns it while decoding
        stated = tags.get(_ORIENTATION, 1)
        orientation = stated if stated in range(1, 9) else 1
        image.load()
        return orientation, 1 if exif else _UNDONE_BY.get(orientation, orientation)
    image.load()  # the EXIF data of a PNG may follow the pixels
    data = image.info.get("exif")
    if data is None and "Raw profile type exif" in image.info:  # ImageMagick's, as text: a header and hexadecimal lines
        try:
            data = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
        except ValueError:
            data = b""
    orientation = _native.orientation(data.removeprefix(b"Exif\0\0")) if isinstance(data, bytes) else 1
    return orientation, orientation if exif else 1


def _transposition(orientation: int) -> Image.Transpose:
    from PIL.Image import Transpose

    return (
        *(Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM, Transpose.TRANSPOSE),
        *(Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90),
    )[orientation - 2]


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scales grey samples of more than 8 bits, which Pillow's conversions would clip to 255.

    Integers of up to 16 bits keep their upper 8 bits, as in OpenCV. The range of 32-bit integers and floats is not
    stated in a file: it is 0 to 255, 0 to 65535 or, for floats, 0 to 1, whichever is the smallest that contains all
    samples; otherwise it extends from the smallest to the largest sample.
    """
    from PIL import Image

    if not image.mode.startswith(("I", "F")):
        return image
    samples, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        scaled = (samples >> (min(max(bits, 8), 16) - 8)).astype(np.uint8)
    elif image.mode == "I" and image.format in ("PNG", "PPM"):
        scaled = (samples >> 8).astype(np.uint8)
    else:
        scaled = _scaled(samples)
    return Image.fromarray(255 - scaled if tags.get(_PHOTOMETRIC) == 0 else scaled)


def _scaled(samples: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    floats = samples.dtype.kind == "f"
    known = samples[np.isfinite(samples)] if floats else samples
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    tops = [top for top in ((1, 255, 65535) if floats else (255, 65535)) if low >= 0 and high <= top]
    if tops:
        low, high = 0.0, float(tops[0])
    factor = 255 / (high - low) if high > low else 0.0
    scaled = np.empty(samples.shape, np.uint8)
    for y in range(0, len(samples), _ROWS):
        rows = np.nan_to_num(samples[y : y + _ROWS].astype(np.float64), nan=low, posinf=high, neginf=low)
        scaled[y : y + _ROWS] = np.rint((rows - low) * factor)
    return scaled
