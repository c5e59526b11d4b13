"""Reads images from the row groups of a parquet file, through pyarrow."""

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
    """Returns the metadata of a file that the source has opened before."""
    with open_parquet(file) as opened:
        return opened.metadata


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
                    batches = opened.iter_batches(BATCH, row_groups=[int(group)], columns=[column], use_threads=False)
                    current, begin, values, error = int(group), 0, pa.array([]), None
                while error is None and at >= begin + len(values):
                    begin, values = begin + len(values), _leaf(next(batches), column)
            except (pa.ArrowException, OSError, ValueError, StopIteration, IndexError) as raised:
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
