"""Images in a parquet file, each read alone: where the values of a binary column lie, and reading one of them.

A reader of whole row groups would unpack some 10 MB (a row group of 100 images, which writers put into one page or
dictionary) for each image of a shuffled order. So pages are indexed here: in a plain page a value lies behind its
length; not packed, it is read where it lies, and of a page packed by snappy (the usual codec) only the blocks around it
are. The other codecs can only unpack a page as a whole. Facts: parquet-format's README.md, Encodings.md and
Compression.md. Plain and dictionary encodings are read; values may be null, not repeated.
"""

from __future__ import annotations

import contextlib
import struct
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from imgtool.pipelines.archives import parquet_pages as pages
from imgtool.pipelines.archives import snappy
from imgtool.pipelines.archives.parquet_pages import Damaged, PageHeader
from imgtool.pipelines.records import MAX_BYTES, Locator
from imgtool.pipelines.storage.folders import RandomAccessFile
from imgtool.wordnet.errors import ImageError

CODECS = {"UNCOMPRESSED": "", "SNAPPY": "snappy", "GZIP": "gzip", "ZSTD": "zstd", "BROTLI": "brotli", "LZ4": "lz4_raw"}
"""pyarrow's names of the codecs a column states, and of those it unpacks; its LZ4 is parquet's LZ4_RAW."""
PLAIN, INDEXED = "PLAIN", ("PLAIN_DICTIONARY", "RLE_DICTIONARY")
MAX_HEADER = 16 << 20
MAX_ROWS = 1 << 24
"""Rows of a row group above which it is not one of images."""
MAX_PAGE, SMALL_PAGE, MAX_RATIO = 1 << 30, 64 << 20, 128
"""A page that only unpacks as a whole is refused above MAX_PAGE bytes, or if it is not small and claims to unpack to
more than MAX_RATIO times its bytes: before memory is taken."""
KEPT, KEPT_BYTES = 8, 128 << 20
"""Unpacked pages kept for the next images: at most so many, and together so large."""


class Column(NamedTuple):
    """A binary column's part in one row group: bytes [begin, end) of the file hold its ``rows`` values and nulls."""

    begin: int
    end: int
    rows: int
    codec: str
    max_level: int


class Place(NamedTuple):
    """``offset``, ``size`` and ``packing`` of a Locator."""

    offset: int
    size: int
    packing: str = ""


NULL = Place(0, 0)


def column_of(metadata: Any, row_group: int, index: int, max_level: int, file_size: int) -> Column:
    """The part of column ``index`` in a row group of a pyarrow FileMetaData. Raises Damaged if it cannot be read."""
    group = metadata.row_group(row_group)
    column = group.column(index)
    if column.file_path:
        raise Damaged("its images are stored in another file, which is not supported")
    if column.compression not in CODECS:
        raise Damaged(f"its codec {column.compression} is not supported; write the file with snappy")
    if group.num_rows == column.num_values == 0:
        return Column(0, 0, 0, "", max_level)  # there need be no page
    begin = column.data_page_offset
    if 0 < (column.dictionary_page_offset or 0) < begin:
        begin = column.dictionary_page_offset
    end = begin + column.total_compressed_size
    if not 4 <= begin <= end <= file_size or not 0 <= column.num_values == group.num_rows <= MAX_ROWS:
        raise Damaged("its footer states impossible sizes or offsets; download it again")
    return Column(begin, end, group.num_rows, CODECS[column.compression], max_level)


def places(file: RandomAccessFile, column: Column, step: int) -> Iterator[Place]:
    """Where each value of a column lies; NULL for a null. Size 0 with a packing is one that only reading tells.

    ``step`` is how many bytes to read at a time: few from a disk, where nearly all is passed over, many from afar.
    Raises Damaged for a page that is not read here.
    """
    window = snappy.Window(file, column.begin, column.end, step)
    dictionary: Callable[[int], Place] | None = None
    at, rows = column.begin, 0
    while rows < column.rows:
        header = _header(window, at)
        body = _Body(file, window, at + header.size, header, column.codec)
        at += header.size + header.packed
        if at > column.end:
            raise Damaged("a page extends beyond its column; download it again")
        if header.kind == pages.DICTIONARY:
            if header.encoding not in (PLAIN, *INDEXED):
                raise Damaged(f"its dictionary is encoded as {header.encoding}, which is not supported")
            dictionary = _plain(body, 0, header.values)
        elif header.kind != pages.INDEX:
            rows += header.values
            if rows > column.rows:
                raise Damaged("a page has more rows than its row group; download it again")
            yield from _data_page(body, header, column.max_level, dictionary)


def unpack(file: RandomAccessFile, locator: Locator) -> bytes:
    """The bytes of an image that ``places`` found. Raises ImageError if they are damaged or too many."""
    _, kind, *words = locator.packing.split(":")
    try:
        if kind == "part":
            packed, size, skip = map(int, words)
            blocks = snappy.decompress(_exactly(file, locator.offset, packed), size)
            return bytes(blocks[skip : skip + locator.size])
        codec, *numbers = words
        *page, index = map(int, numbers)
        data, values = _page(file, codec, locator.offset, *page)
        at, size = values[index]
    except (Damaged, snappy.Opaque) as error:
        raise ImageError(f"the parquet file is damaged: {error}") from None
    if size > MAX_BYTES:
        raise ImageError(f"{size} bytes are too many for an image")
    return bytes(data[at : at + size])


def _header(window: snappy.Window, at: int) -> PageHeader:
    size = 256
    while True:
        data = window.read(at, min(size, window.end - at))
        try:
            return pages.page_header(data)
        except pages.TooShort:
            if len(data) < size or size >= MAX_HEADER:
                raise Damaged(f"there is no page at byte {at}") from None
        size *= 16


class _Body:
    """The bytes of a page behind its header and its unpacked levels: ``size`` bytes, ``packed`` in the file."""

    def __init__(self, file: RandomAccessFile, window: snappy.Window, at: int, header: PageHeader, codec: str) -> None:
        self.file, self.window = file, window
        self.offset, self.packed = at + header.levels, header.packed - header.levels
        self.size = header.unpacked - header.levels
        self.codec = codec if header.is_packed else ""
        if self.codec and not self.size:
            self.codec, self.packed = "", 0  # a codec may make a byte of nothing
        if not self.codec and self.packed != self.size:
            raise Damaged("an uncompressed page states two different sizes")
        self._sparse: snappy.Sparse | None = None

    def read(self, at: int, size: int) -> bytes:
        """Some of the unpacked bytes, going forward. Raises snappy.Opaque if they come only with all others."""
        if at + size > self.size:
            raise snappy.Opaque
        if not self.codec:
            return self.window.read(self.offset + at, size)
        if self.codec != "snappy":
            raise snappy.Opaque
        if self._sparse is None:
            self._sparse = snappy.Sparse(self.window, self.offset, self.offset + self.packed)
            if self._sparse.size != self.size:
                raise snappy.Opaque
        return self._sparse.read(at, size)

    def place(self, at: int, size: int) -> Place:
        """Where such bytes lie. Raises snappy.Opaque as ``read`` does, though only for the first."""
        if self._sparse is None or not size:
            return Place(self.offset + at, size)
        part = self._sparse.part(at, size)
        return Place(part.offset, size, f"parquet:part:{part.packed}:{part.size}:{part.skip}")

    def place_in_whole(self, begin: int, max_level: int, count: int, index: int) -> Place:
        """The place of value ``index`` of ``count`` from byte ``begin`` on, where the page has to be unpacked for it.
        Levels up to ``max_level``, unless that is 0, lie before the values and are part of them."""
        _check_size(self.packed, self.size)
        numbers = f"{self.packed}:{self.size}:{begin}:{max_level}:{count}:{index}"
        return Place(self.offset, 0, f"parquet:page:{self.codec}:{numbers}")


def _data_page(
    body: _Body, header: PageHeader, max_level: int, dictionary: Callable[[int], Place] | None
) -> Iterator[Place]:
    count, begin = header.values, 0
    there: npt.NDArray[np.bool_] = np.ones(count, np.bool_)
    if max_level and header.kind == pages.DATA_V2:
        levels = body.window.read(body.offset - header.levels, header.levels)
        there, max_level = pages.present(levels, max_level, count), 0
    if max_level and header.level_encoding != "RLE":
        raise Damaged(f"its levels are encoded as {header.level_encoding}, which is not supported")
    if header.encoding in INDEXED:
        if dictionary is None:
            raise Damaged("its dictionary is missing")
        data = _unpacked(body.file, body.offset, body.packed, body.size, body.codec)
        if max_level:
            there, begin = _levels(lambda at, size: bytes(data[at : at + size]), max_level, count)
        width = data[begin] if begin < len(data) else 0  # a page of nulls may end here
        value, ordinals = dictionary, pages.hybrid(bytes(data[begin + 1 :]), width, int(there.sum()))
    elif header.encoding == PLAIN:
        try:
            if max_level:
                there, begin = _levels(body.read, max_level, count)
        except snappy.Opaque:  # the levels are packed with the values: unpack has to see which are null
            yield from (body.place_in_whole(0, max_level, count, row) for row in range(count))
            return
        present = int(there.sum())
        value, ordinals = _plain(body, begin, present), np.arange(present)
    else:
        raise Damaged(
            f"its images are encoded as {header.encoding}, which is not supported; write the file in plain encoding"
        )
    numbers = iter(ordinals.tolist())
    yield from (value(next(numbers)) if is_there else NULL for is_there in there.tolist())


def _levels(read: Callable[[int, int], bytes], max_level: int, count: int) -> tuple[npt.NDArray[np.bool_], int]:
    """Which of a version 1 page's values are not null, and where the values begin."""
    (length,) = struct.unpack("<L", _all_of(read(0, 4), 4))
    return pages.present(_all_of(read(4, length), length), max_level, count), 4 + length


def _plain(body: _Body, begin: int, count: int) -> Callable[[int], Place]:
    """The place of each value in a plain page, by its number; ``begin``: what lies before them."""
    try:
        values = []
        at = begin
        for _ in range(count):
            (size,) = struct.unpack("<L", body.read(at, 4))
            values.append((at + 4, size))
            at += 4 + size
        if at > body.size:
            raise snappy.Opaque
        if values:
            body.place(*values[0])
    except (snappy.Opaque, struct.error):
        return lambda i: body.place_in_whole(begin, 0, count, _below(i, count))
    return lambda i: body.place(*values[_below(i, count)])


def _below(index: int, count: int) -> int:
    if index >= count:
        raise Damaged(f"value {index} is requested of a dictionary of {count} values")
    return index


def _exactly(file: RandomAccessFile, offset: int, size: int) -> bytes:
    return _all_of(file.read(offset, size), size)


def _all_of(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise Damaged("it ends within a page")
    return data


def _check_size(packed: int, size: int) -> None:
    if size > MAX_PAGE or size > max(SMALL_PAGE, packed * MAX_RATIO):
        raise Damaged(
            f"a page of {packed} bytes decompresses to {size} bytes, too many to read single images; write the file "
            "again, with snappy or with smaller row groups"
        )


def _unpacked(file: RandomAccessFile, offset: int, packed: int, size: int, codec: str) -> memoryview:
    """The ``size`` bytes that a page unpacks to. Raises Damaged if they are not that many."""
    _check_size(packed, size)
    data = _exactly(file, offset, packed)
    if not codec:
        return memoryview(_all_of(data, size))
    try:
        if codec == "snappy":
            stated, used = snappy.varint(data[:5])
            if stated != size:
                raise Damaged("a page does not have the stated size")
            return snappy.decompress(data[used:], size)
        if codec == "lz4_raw":
            # pyarrow does not tell how many bytes came out: it must be too many for one less
            with contextlib.suppress(OSError):
                if size > 1:
                    pa.Codec(codec).decompress(data, size - 1)
                    raise Damaged("a page does not have the stated size")
            return memoryview(pa.Codec(codec).decompress(data, size)).cast("B")
        with pa.input_stream(pa.py_buffer(data), compression=codec) as stream:
            return memoryview(_all_of(stream.read(size + 1), size))
    except (snappy.Opaque, pa.ArrowException, OSError) as error:
        raise Damaged(f"a page cannot be decompressed ({error})") from None


Page = tuple[memoryview, list[tuple[int, int]]]
_kept: OrderedDict[tuple[int, int], tuple[weakref.ref[RandomAccessFile], Page]] = OrderedDict()
_lock = threading.Lock()


def _page(
    file: RandomAccessFile, codec: str, offset: int, packed: int, size: int, begin: int, max_level: int, count: int
) -> Page:
    """A page that unpacks as a whole, and where each value of it lies in that: perhaps one of the last ones."""
    key = (id(file), offset)
    with _lock:
        found = _kept.get(key)
        if found and found[0]() is file:  # an id is given again when a file is gone
            _kept.move_to_end(key)
            return found[1]
    data = _unpacked(file, offset, packed, size, codec)
    there = [True] * count
    if max_level:
        levels, begin = _levels(lambda at, size: bytes(data[at : at + size]), max_level, count)
        there = levels.tolist()
    values = []
    for is_there in there:
        length = 0
        if is_there:
            length = int.from_bytes(data[begin : begin + 4], "little")
            begin += 4
        values.append((begin, length))
        begin += length
        if begin > size:
            raise Damaged("an image extends beyond its page")
    with _lock:
        _kept[key] = (weakref.ref(file), (data, values))
        while len(_kept) > KEPT or (len(_kept) > 1 and sum(len(page[0]) for _, page in _kept.values()) > KEPT_BYTES):
            _kept.popitem(last=False)
    return data, values
