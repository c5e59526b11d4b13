"""FFCV's .beton files (format version 2), written and read with numpy alone.

Each shard is a complete file that stock FFCV opens, with the fields ``image`` (RGBImageField) and ``label`` (IntField).
Layout, little-endian: a header of 24 bytes; a description of 1,041 bytes per field; one row of metadata per sample;
pages with the images, which begin at multiples of the page size; an allocation table. No image crosses a page boundary.
Source: FFCV 1.0.2, ffcv/types.py, ffcv/memory_allocator.py.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from imgtool.pipelines import codec
from imgtool.wordnet.errors import DatasetError

VERSION = 2
PAGE_SIZE = 1 << 23
"""The largest page, FFCV's default."""
MIN_PAGE_SIZE = 1 << 16
"""The smallest page. FFCV's reader takes every power of two."""
JPEG, RAW = 0, 1

HEADER = np.dtype(
    [("version", "<u2"), ("num_fields", "<u2"), ("page_size", "<u4"), ("num_samples", "<u8"), ("table_ptr", "<u8")],
    align=True,
)
FIELD = np.dtype([("type_id", "<u1"), ("name", "<u1", 16), ("arguments", "<u1", 1024)])
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
ROW = np.dtype({"names": ["image", "label"], "formats": [IMAGE, "<i8"], "offsets": [0, 16], "itemsize": 24})
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
FIELDS = (("image", 2), ("label", 1))  # name, FFCV's type id: 2 RGB image, 1 int
METADATA_START = HEADER.itemsize + len(FIELDS) * FIELD.itemsize


def page_size_for(total: int, largest: int) -> int:
    """Returns the page size of a shard with samples of ``total`` bytes, the largest of them of ``largest`` bytes.

    It is a power of two, and at most a quarter of the samples, so that a file is not much larger than they are: it has
    a page before and a partly used page after them. From 32 MB on it is PAGE_SIZE.
    """
    fitting = max(total // 4, 2 * largest - 1, MIN_PAGE_SIZE)
    return min(1 << (fitting.bit_length() - 1), PAGE_SIZE)


class BetonWriter:
    """Writes samples one by one to ``path``; the file is valid only after :meth:`close`.

    ``capacity`` is the maximum number of samples; it determines where the pages start. Keeps one row per sample in
    memory.
    """

    def __init__(self, path: str | Path, capacity: int, page_size: int = PAGE_SIZE) -> None:
        self.page_size = page_size
        self._capacity = capacity
        self._rows = np.zeros(capacity, ROW)
        self._table = np.zeros(capacity, ALLOCATION)
        self._count = 0
        # The first page boundary after the metadata, where FFCV starts its pages too.
        self._end = self._align(METADATA_START + capacity * ROW.itemsize)
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - closed in close()

    def _align(self, at: int) -> int:
        return -(-at // self.page_size) * self.page_size

    def add(self, data: bytes, width: int, height: int, label: int, raw: bool = False) -> int:
        """Appends an image of width × height pixels, a JPEG or ``raw`` RGB; returns its position in the shard.

        Raises ValueError if it is larger than a page.
        """
        if len(data) > self.page_size:
            raise ValueError(f"a sample of {len(data)} bytes does not fit a page of {self.page_size} bytes")
        if self._end // self.page_size != (self._end + len(data) - 1) // self.page_size:
            self._end = self._align(self._end)
        i = self._count
        self._file.seek(self._end)
        self._file.write(data)
        self._rows[i] = ((RAW if raw else JPEG, width, height, self._end), label)
        self._table[i] = (i, self._end, len(data))
        self._end += len(data)
        self._count += 1
        return i

    def close(self) -> None:
        """Writes header, metadata and allocation table, and syncs the file to disk."""
        rows, table = self._rows[: self._count], self._table[: self._count]
        table_ptr = self._align(self._end)
        header = np.array((VERSION, len(FIELDS), self.page_size, self._count, table_ptr), HEADER)
        fields = np.zeros(len(FIELDS), FIELD)
        for field, (name, type_id) in zip(fields, FIELDS, strict=True):
            field["type_id"] = type_id
            field["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
        self._file.seek(0)
        self._file.write(header.tobytes() + fields.tobytes() + rows.tobytes())
        self._file.seek(table_ptr)
        self._file.write(table.tobytes())
        self._file.truncate()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abort(self) -> None:
        """Closes the file without completing it."""
        self._file.close()


class BetonReader:
    """A memory-mapped shard. All offsets and sizes in the file are checked against its length before they are used.

    ``offset``, ``size`` (uint64 [N], bytes), ``width``, ``height`` (int32 [N], pixels), ``label`` (int64 [N]) and
    ``raw`` (uint8 [N]: 1 for RGB pixels, 0 for JPEG) describe its samples; ``buffer`` is the whole file. Raises
    DatasetError if the file cannot be read, is damaged, or has other fields.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                length = os.fstat(file.fileno()).st_size
                if length < METADATA_START:
                    raise DatasetError(f"{self.path}: is not a .beton file: it has only {length} bytes")
                self.buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DatasetError(f"{self.path}: {error.strerror}") from error
        header = np.frombuffer(self.buffer, HEADER, 1)[0]
        if header["version"] != VERSION:
            raise DatasetError(f"{self.path}: has .beton format version {header['version']}, imgtool reads {VERSION}")
        fields = np.frombuffer(self.buffer, FIELD, len(FIELDS), HEADER.itemsize)
        found = tuple((bytes(f["name"]).rstrip(b"\0").decode("latin-1"), int(f["type_id"])) for f in fields)
        if header["num_fields"] != len(FIELDS) or tuple(t for _, t in found) != tuple(t for _, t in FIELDS):
            raise DatasetError(f"{self.path}: expected the fields RGB image and int label, found {found}")
        n, table_ptr = int(header["num_samples"]), int(header["table_ptr"])
        if METADATA_START + n * ROW.itemsize > length or table_ptr + n * ALLOCATION.itemsize > length:
            raise DatasetError(f"{self.path}: is truncated: {n} samples do not fit in {length} bytes")
        rows = np.frombuffer(self.buffer, ROW, n, METADATA_START)
        table = np.frombuffer(self.buffer, ALLOCATION, n, table_ptr)
        self.offset: npt.NDArray[np.uint64] = rows["image"]["data_ptr"].astype(np.uint64)
        self.size = self._sizes(table, length)
        self.width: npt.NDArray[np.int32] = rows["image"]["width"].astype(np.int32)
        self.height: npt.NDArray[np.int32] = rows["image"]["height"].astype(np.int32)
        self.label: npt.NDArray[np.int64] = rows["label"].astype(np.int64)
        self.raw: npt.NDArray[np.uint8] = rows["image"]["mode"].astype(np.uint8)
        if n and self.raw.max() > RAW:
            raise DatasetError(f"{self.path}: is damaged: a sample is neither JPEG nor raw")
        if n and (self.width.min() < 1 or self.height.min() < 1):
            raise DatasetError(f"{self.path}: is damaged: a sample has no pixels")
        pixels = 3 * self.width.astype(np.uint64) * self.height.astype(np.uint64)
        if (self.size != pixels)[self.raw == RAW].any():
            raise DatasetError(f"{self.path}: is damaged: the size of a raw sample does not match its width and height")

    def _sizes(self, table: npt.NDArray[np.void], length: int) -> npt.NDArray[np.uint64]:
        # FFCV's workers write the table in any order, so it is joined with the samples by pointer.
        order = np.argsort(table["ptr"], kind="stable")
        at = np.minimum(np.searchsorted(table["ptr"][order], self.offset), max(len(table) - 1, 0))
        joined = table[order][at]
        end = joined["ptr"].astype(np.float64) + joined["size"]
        if (joined["ptr"] != self.offset).any() or (end > length).any():
            raise DatasetError(f"{self.path}: is damaged: the allocation table does not match the samples")
        return joined["size"].astype(np.uint64)

    def __len__(self) -> int:
        return len(self.offset)

    def read(self, position: int) -> bytes:
        """Returns the stored bytes of a sample."""
        at = int(self.offset[position])
        return self.buffer[at : at + int(self.size[position])]

    def pixels(self, position: int) -> codec.Pixels:
        """Decodes a sample, uint8 [H, W, 3]. Raises ImageError."""
        if self.raw[position]:
            return np.frombuffer(self.read(position), np.uint8).reshape(self.height[position], self.width[position], 3)
        return codec.decode(self.read(position), exif=False)
