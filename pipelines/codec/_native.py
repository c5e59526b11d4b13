"""Calls the C++ codec through ctypes. libcodec.so does not use Python's API, so one build works with every version.

imgtool.pipelines.codec is the public interface. Every call releases the GIL. Pixels are uint8 RGB, [H, W, 3]; data is
any contiguous buffer. Arguments of the wrong type raise TypeError or ctypes.ArgumentError.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_bool, c_char_p, c_int32, c_int64, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imgtool.pipelines.codec.isa import InstructionSets
from imgtool.wordnet.errors import ImgtoolError

_library = ctypes.CDLL(str(Path(__file__).with_name("libcodec.so")))
isa = InstructionSets(_library, "codec")
_KEEP = ("none", "fit", "original")  # Keep in recode.hpp
_SPACES = ("unknown", "grayscale", "rgb", "ycbcr", "cmyk", "ycck")  # libjpeg's J_COLOR_SPACE


class NativeImageError(Exception):
    """Raised when an image cannot be decoded; the message is one line."""


# The structures have the fields of those in api.cpp.
class _Fields(ctypes.Structure):
    _fields_ = tuple(
        (name, c_int32)
        for name in ("width", "height", "components", "space", "progressive", "orientation", "h_samp", "v_samp")
    )

    def header(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "height": self.height,
            "components": self.components,
            "space": _SPACES[self.space] if self.space < len(_SPACES) else "unknown",
            "progressive": bool(self.progressive),
            "orientation": self.orientation,
            "sampling": (self.h_samp, self.v_samp),
        }


class _Result(ctypes.Structure):
    """An image made by the library, which frees it when this object is collected."""

    _fields_ = (
        ("data", c_void_p),
        ("size", c_uint64),
        ("width", c_int32),
        ("height", c_int32),
        ("damaged", c_int32),
        ("how", c_char_p),
        ("source", _Fields),
        ("owner", c_void_p),
        ("release", c_void_p),
    )

    def __del__(self, _release: Any = _library.codec_release) -> None:
        _release(byref(self))

    def bytes(self) -> bytes:
        return ctypes.string_at(self.data, self.size)

    def pixels(self) -> npt.NDArray[np.uint8]:
        return np.asarray(_Pixels(self))  # without a copy


class _Pixels:
    def __init__(self, result: _Result) -> None:
        self._result = result  # the array refers to this object, which keeps the result alive
        shape = result.height, result.width, 3
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": shape, "data": (result.data, False)}


class _Buffers(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("sizes", c_void_p), ("count", c_int64))


class _Samples(ctypes.Structure):
    _fields_ = (
        ("count", c_int64),
        *((name, c_void_p) for name in ("shard", "offset", "size", "raw", "dims", "crops", "out")),
        ("out_w", c_int32),
        ("out_h", c_int32),
    )


_ERRORS: dict[int, Callable[[str], Exception]] = {
    1: NativeImageError,
    2: MemoryError,
    3: ValueError,
    4: RuntimeError,
}
_DATA = (c_void_p, c_uint64)


def _declare() -> None:
    results: dict[str, Any] = {
        "error": c_char_p,
        "has_end": c_bool,
        "release": None,
        "pool_delete": None,
        "batch_wait": c_int64,
        "batch_error": c_char_p,
        "batch_delete": None,
    }
    arguments: dict[str, tuple[Any, ...]] = {
        "error": (),
        "probe": (*_DATA, POINTER(_Fields)),
        "has_end": _DATA,
        "orientation": _DATA,
        "decode": (*_DATA, c_int64, c_int64, c_bool, POINTER(_Result)),
        "read_coefficients": (*_DATA, c_int32, c_int32, c_int32, c_int32, POINTER(c_bool)),
        "recode": (
            *(*_DATA, c_int64, c_int64, c_int64, c_bool, c_int32),
            *(c_int32, c_int32, c_int64, POINTER(_Result)),
        ),
        "encode": (c_void_p, c_int64, c_int64, c_int64, c_int32, c_int32, c_int64, POINTER(_Result)),
        "release": (POINTER(_Result),),
        "resize": (c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_int64, c_int64),
        "target_size": (c_int64, c_int64, c_int64, c_int64, POINTER(c_int32)),
        "pool_new": (c_int64, POINTER(c_void_p)),
        "pool_delete": (c_void_p,),
        "batch_new": (c_void_p, POINTER(_Buffers), POINTER(_Samples), POINTER(c_void_p)),
        "batch_wait": (c_void_p,),
        "batch_error": (c_void_p, c_int64),
        "batch_delete": (c_void_p,),
    }
    for name, types in arguments.items():
        function = getattr(_library, f"codec_{name}")
        function.argtypes = types
        function.restype = results.get(name, c_int32)


_declare()


def _check(status: int) -> None:
    if status:
        raise _ERRORS[status](_library.codec_error().decode("utf-8", "replace"))


def _view(data: Any) -> npt.NDArray[np.uint8]:
    """Returns the bytes of a buffer without a copy; their address is valid as long as the array exists."""
    return np.frombuffer(data, np.uint8)


def _rgb(pixels: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    array = np.ascontiguousarray(pixels, np.uint8)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError("expected uint8 pixels of shape [H, W, 3]")
    return array


def _column(name: str, array: npt.NDArray[Any], dtype: type[np.generic], size: int) -> int:
    """Checks that an array is contiguous and has this dtype and size, and returns its address."""
    if array.dtype != dtype or not array.flags.c_contiguous:
        raise TypeError(f"{name}: expected contiguous {dtype.__name__}, not {array.dtype}")
    if array.size != size:
        raise ValueError(f"the arrays' shapes do not match: {name} has {array.size} values, not {size}")
    return array.ctypes.data


def probe(data: Any) -> dict[str, Any]:
    view, fields = _view(data), _Fields()
    _check(_library.codec_probe(view.ctypes.data, view.size, byref(fields)))
    return fields.header()


def has_end(data: Any) -> bool:
    """Tells whether a JPEG has an end marker."""
    view = _view(data)
    return bool(_library.codec_has_end(view.ctypes.data, view.size))


def orientation(exif: bytes) -> int:
    """Returns the orientation, 1 to 8, in EXIF data that begins with a TIFF header; 1 if there is none."""
    view = _view(exif)
    return int(_library.codec_orientation(view.ctypes.data, view.size))


def read_coefficients(data: Any, x: int, y: int, w: int, h: int) -> bool:
    view, read = _view(data), c_bool()
    _check(_library.codec_read_coefficients(view.ctypes.data, view.size, x, y, w, h, byref(read)))
    return read.value


def decode(data: Any, max_side: int, short_side: int, upright: bool) -> tuple[npt.NDArray[np.uint8], bool]:
    """Returns the pixels, and whether the data is damaged, so that libjpeg filled in some of them."""
    view, result = _view(data), _Result()
    _check(_library.codec_decode(view.ctypes.data, view.size, max_side, short_side, upright, byref(result)))
    return result.pixels(), bool(result.damaged)


def recode(
    data: Any,
    max_side: int,
    short_side: int,
    quality: int,
    upright: bool,
    keep: str,
    subsampling: tuple[int, int],
    restart: int,
) -> tuple[bytes, int, int, bool, str, dict[str, Any]]:
    """Returns the JPEG to store, width, height, whether the source is damaged, how it was made, the source's header.

    ``keep``: "none", "fit" or "original".
    """
    view, result = _view(data), _Result()
    _check(
        _library.codec_recode(
            *(view.ctypes.data, view.size, max_side, short_side, quality, upright, _KEEP.index(keep)),
            *(*subsampling, restart, byref(result)),
        )
    )
    how = result.how.decode()
    return result.bytes(), result.width, result.height, bool(result.damaged), how, result.source.header()


def encode(rgb: npt.ArrayLike, quality: int, subsampling: tuple[int, int], restart: int) -> bytes:
    pixels, result = _rgb(rgb), _Result()
    height, width, _ = pixels.shape
    _check(_library.codec_encode(pixels.ctypes.data, width, height, quality, *subsampling, restart, byref(result)))
    return result.bytes()


def resize(rgb: npt.ArrayLike, crop: npt.NDArray[np.int32], width: int, height: int) -> npt.NDArray[np.uint8]:
    """Crops and resizes pixels to [height, width, 3]; the crop has 9 numbers, as in ``Batch``."""
    if width < 1 or height < 1:
        raise ValueError(f"width and height must be at least 1, not {width} x {height}")
    pixels, out = _rgb(rgb), np.empty((height, width, 3), np.uint8)
    source_height, source_width, _ = pixels.shape
    address = _column("crop", crop, np.int32, 9)
    _check(
        _library.codec_resize(pixels.ctypes.data, source_width, source_height, address, out.ctypes.data, width, height)
    )
    return out


def target_size(max_side: int, short_side: int, width: int, height: int) -> tuple[int, int]:
    out = (c_int32 * 2)()
    _check(_library.codec_target_size(max_side, short_side, width, height, out))
    return out[0], out[1]


class _Owner:
    """Owns an object of the library and deletes it, but only in the process that made it.

    A fork copies the object but not its threads.
    """

    _as_parameter_: c_void_p
    _process = 0

    def __reduce__(self) -> str:
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled")


class Pool(_Owner):
    """Threads that decode batches. In a forked process, the first batch starts new threads.

    Raises:
        ValueError: fewer than one thread.
        ImgtoolError: the system does not allow that many threads.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.start()

    def start(self) -> None:
        """Starts the threads, unless they are running in this process."""
        if self._process == os.getpid():
            return
        self._as_parameter_ = c_void_p()
        try:
            _check(_library.codec_pool_new(self.threads, byref(self._as_parameter_)))
        except RuntimeError as error:
            raise ImgtoolError(f"{error}: give a smaller --workers, or raise the system's limit") from None
        self._process = os.getpid()

    def __del__(self, _delete: Any = _library.codec_pool_delete, _getpid: Any = os.getpid) -> None:
        if self._process == _getpid():
            _delete(self._as_parameter_)


class Buffers:
    """The buffers that samples are read from: memory-mapped shards, or any contiguous buffers."""

    def __init__(self, buffers: Sequence[Any]) -> None:
        self._views = [_view(buffer) for buffer in buffers]
        self._addresses = np.array([view.ctypes.data for view in self._views], np.uintp)
        self._sizes = np.array([view.size for view in self._views], np.uint64)
        self.structure = _Buffers(self._addresses.ctypes.data, self._sizes.ctypes.data, len(self._views))


class Batch(_Owner):
    """N samples that the threads of a pool decode into ``out``.

    Args:
        pool: the threads.
        buffers: the buffers that hold the samples.
        shard: [N]: the index of the buffer of each sample.
        offset: [N]: the position of its bytes in the buffer.
        size: [N]: the number of its bytes.
        raw: [N]: 1 if they are pixels, 0 if they are a JPEG.
        dims: [N, 2]: its width and height.
        crops: [N, 9]: x, y, w, h, resized w, h, window x, y, flip.
        out: uint8 [N, H, W, 3], written by the threads.

    Raises:
        TypeError: another dtype.
        ValueError: shapes that do not match.
    """

    def __init__(
        self,
        pool: Pool,
        buffers: Buffers,
        shard: npt.NDArray[np.int32],
        offset: npt.NDArray[np.uint64],
        size: npt.NDArray[np.uint64],
        raw: npt.NDArray[np.uint8],
        dims: npt.NDArray[np.int32],
        crops: npt.NDArray[np.int32],
        out: npt.NDArray[np.uint8],
    ) -> None:
        n = len(shard)
        if out.ndim != 4 or out.shape[3] != 3 or not out.flags.writeable:
            raise ValueError("out: expected a writable array of shape [N, H, W, 3]")
        height, width = out.shape[1:3]
        samples = _Samples(
            n,
            _column("shard", shard, np.int32, n),
            _column("offset", offset, np.uint64, n),
            _column("size", size, np.uint64, n),
            _column("raw", raw, np.uint8, n),
            _column("dims", dims, np.int32, 2 * n),
            _column("crops", crops, np.int32, 9 * n),
            _column("out", out, np.uint8, n * height * width * 3),
            width,
            height,
        )
        self._held = pool, buffers, shard, offset, size, raw, dims, crops, out  # kept alive while the threads use them
        pool.start()
        self._as_parameter_ = c_void_p()
        _check(_library.codec_batch_new(pool, byref(buffers.structure), byref(samples), byref(self._as_parameter_)))
        self._process = os.getpid()

    def wait(self) -> list[tuple[int, str]]:
        """Waits until all samples are decoded; returns (i, message) of each that failed. Its pixels are undefined.

        Raises:
            RuntimeError: this process was forked after the batch was started, so the threads are not in it.
        """
        if self._process != os.getpid():
            raise RuntimeError("this batch was started before the process was forked: start it again")
        if not _library.codec_batch_wait(self):
            return []
        messages = ((i, _library.codec_batch_error(self, i)) for i in range(len(self._held[2])))
        return [(i, message.decode("utf-8", "replace")) for i, message in messages if message]

    def __del__(self, _delete: Any = _library.codec_batch_delete, _getpid: Any = os.getpid) -> None:
        if self._process == _getpid():
            _delete(self._as_parameter_)
