"""Reads images from the row groups of a parquet file, through pyarrow, after a check of the pages' headers.

A page's header is a Thrift structure in the compact protocol; its fields have the numbers in parquet.thrift.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imgtool.pipelines.records import MAX_BYTES, Locator
from imgtool.pipelines.storage.folders import RandomAccessFile
from imgtool.wordnet.errors import ImageError

BATCH = 64
"""Rows that are decoded at once."""
PIECE = 16 << 20
"""Bytes of a row group that are read at once. A row group of 100 images of ImageNet has 11 MB."""
BATCH_BYTES = 1 << 28
"""Bytes that are decoded at once: fewer rows where the pages allow larger values."""
HEADER = 1 << 8
MAX_HEADER = 1 << 26
"""Bytes of a page's header: those read at first, and those of the largest, which states two images as statistics."""
MAX_PAGE, SMALL_PAGE, MAX_RATIO = 1 << 30, 1 << 24, 1032
"""Bytes of the largest page when decompressed. One of more than ``SMALL_PAGE`` is compressed at most to 1/MAX_RATIO, as
by deflate."""
TYPE, SIZE, STORED, DATA, DICTIONARY, DATA_V2 = 1, 2, 3, 5, 7, 8
COUNT = 1
"""Numbers of fields: of a page, and in the structures DATA, DICTIONARY and DATA_V2."""
TRUE, FALSE, BYTE, I64, DOUBLE, BINARY, STRUCTURE = 1, 2, 3, 6, 7, 8, 12

Fields = dict[int, "int | Fields"]


class Damaged(Exception):
    """The file is not what it states."""


class RowGroup(NamedTuple):
    """The images of a row group: where their stored bytes begin in the file, and the number of rows."""

    offset: int
    rows: int


def open_parquet(file: RandomAccessFile, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Opens a file; with its ``metadata`` the footer is not read again."""
    stream = pa.PythonFile(_RawFile(file), mode="r")
    return pq.ParquetFile(
        stream, metadata=metadata, buffer_size=PIECE, pre_buffer=False, page_checksum_verification=True
    )


def footer(file: RandomAccessFile) -> pq.FileMetaData:
    """Returns the metadata of a file that the source has opened before. Raises Damaged if it is another file now."""
    try:
        with open_parquet(file) as opened:
            return opened.metadata
    except (pa.ArrowException, ValueError) as error:
        raise Damaged(" ".join(str(error).split())) from None


def row_groups(opened: pq.ParquetFile, column: str, file_size: int) -> list[RowGroup]:
    """Returns the row groups of a binary column, given by its path in the schema.

    Raises Damaged if the column is not one image per row, or if the footer states what cannot be.
    """
    metadata, schema = opened.metadata, opened.schema
    leaves = [schema.column(i) for i in range(metadata.num_columns)]
    index = next((i for i, leaf in enumerate(leaves) if leaf.path == column), -1)
    if index < 0 or leaves[index].max_repetition_level or leaves[index].physical_type != "BYTE_ARRAY":
        raise Damaged(f"its column {column} does not hold one image per row; write it as a binary column")
    found = []
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        chunk = group.column(index)
        if chunk.file_path:
            raise Damaged("its images are stored in another file; write them into this one")
        begin = chunk.data_page_offset
        if 0 < (chunk.dictionary_page_offset or 0) < begin:
            begin = chunk.dictionary_page_offset
        if group.num_rows and not 4 <= begin <= begin + chunk.total_compressed_size <= file_size:
            raise Damaged("is damaged: its footer states bytes outside the file; download it again")
        found.append(RowGroup(begin, group.num_rows))
    return found


def locator(file: str, column: str, group: int, offset: int, row: int, row_of_file: int) -> Locator:
    """The locator of a row of a row group. Its size is 0: only reading shows it."""
    return Locator(file, f"row {row_of_file}", offset, 0, f"parquet:{group}:{row}:{column}")


def read(
    file: RandomAccessFile, locators: Sequence[Locator], metadata: pq.FileMetaData
) -> Iterator[bytes | ImageError]:
    """Yields the bytes of these images of one file, or why one cannot be read.

    A row group is read once if the locators are in the file's order. Raises OSError if the file itself cannot be read.
    """
    with contextlib.ExitStack() as stack:
        opened: pq.ParquetFile | None = None
        batches: Iterator[pa.RecordBatch] = iter(())
        current, begin, values, error = -1, 0, pa.array([]), None
        for one in locators:
            _, group, row, column = one.packing.split(":", 3)
            at = int(row)
            try:
                if opened is None:
                    opened = stack.enter_context(open_parquet(file, metadata))
                if int(group) != current or at < begin:
                    current, begin, values, error = int(group), 0, pa.array([]), None
                    largest = largest_page(file, one.offset, metadata.row_group(current).num_rows)
                    count = max(1, min(BATCH, BATCH_BYTES // max(largest, 1)))
                    batches = opened.iter_batches(count, row_groups=[int(group)], columns=[column], use_threads=False)
                while error is None and at >= begin + len(values):
                    begin, values = begin + len(values), _leaf(next(batches), column)
            except (pa.ArrowException, OSError, ValueError, StopIteration, IndexError, Damaged) as raised:
                if getattr(raised, "errno", None) is not None:
                    raise  # the file cannot be read; Arrow's own OSErrors, for damage, have no number
                error = ImageError(f"the parquet file is damaged: {' '.join(str(raised).split())}")
            yield error or _image(values, at - begin)


def _image(values: Any, index: int) -> bytes | ImageError:
    value = values[index]
    size = 0 if value.as_buffer() is None else value.as_buffer().size
    if not size:
        return ImageError("the row holds no bytes")
    if size > MAX_BYTES:
        return ImageError(f"{size} bytes are too many for an image")
    data: bytes = value.as_py()
    return data


def _leaf(batch: pa.RecordBatch, column: str) -> Any:
    array = batch.column(0)
    for name in column.split(".")[1:]:
        array = pc.struct_field(array, name)
    return array


class _RawFile(io.RawIOBase):
    """A RandomAccessFile with the interface of Python's raw files, which pyarrow reads."""

    def __init__(self, file: RandomAccessFile) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._file.size)[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(self._file.size - self._at, 0)
        data = self._file.read(self._at, left if size < 0 else min(size, left))
        self._at += len(data)
        return data


def largest_page(file: RandomAccessFile, at: int, rows: int) -> int:
    """Returns the size of the largest page, decompressed, of the column chunk of ``rows`` values at byte ``at``.

    Raises Damaged if the pages are larger, or have more values, than their bytes allow.
    """
    largest = values = pages = 0
    while values < rows:
        header, length = _header(file, at)
        size, stored = header.get(SIZE), header.get(STORED)
        if not (isinstance(size, int) and isinstance(stored, int) and size >= 0 <= stored):
            raise Damaged("has a page without a size")
        at += length + stored
        if at > file.size or size > min(MAX_PAGE, max(SMALL_PAGE, MAX_RATIO * stored)):
            raise Damaged(f"has a page that states {size:,} bytes in {stored:,}")
        largest = max(largest, size)
        for kind in (DATA, DICTIONARY, DATA_V2):
            if isinstance(of_kind := header.get(kind), dict):
                count = of_kind.get(COUNT)
                if not isinstance(count, int) or not 0 <= count <= (size // 4 if kind == DICTIONARY else rows):
                    raise Damaged(f"has a page that states {count} values")
                values += count * (kind != DICTIONARY)
        pages += 1
        if pages > 2 * rows + 16:
            raise Damaged("has pages without values")
    return largest


def _header(file: RandomAccessFile, at: int) -> tuple[Fields, int]:
    """Returns the fields of the page's header at byte ``at``, and its length."""
    size = HEADER
    while True:
        data = file.read(at, size)
        try:
            return _structure(data, 0)
        except IndexError:
            if len(data) < size or size >= MAX_HEADER:
                raise Damaged("has a page without a header") from None
        size *= 16


def _structure(data: bytes, at: int, depth: int = 0) -> tuple[Fields, int]:
    fields: Fields = {}
    number = 0
    while head := data[at]:
        at, kind = at + 1, head & 15
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        if kind in (TRUE, FALSE):
            fields[number] = int(kind == TRUE)
        elif BYTE < kind <= I64:
            fields[number], at = _integer(data, at)
        elif kind == STRUCTURE and depth < 4:
            fields[number], at = _structure(data, at, depth + 1)
        elif kind == BINARY:
            length, at = _varint(data, at)
            at += length
        elif kind in (BYTE, DOUBLE):
            at += 1 if kind == BYTE else 8
        else:
            raise Damaged("has a page whose header is unreadable")
    return fields, at + 1


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return value >> 1 ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise Damaged("has a page whose header is unreadable")
