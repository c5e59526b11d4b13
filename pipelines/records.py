"""Records, which sources yield: one image's key, its classes and where its bytes are stored, but not the bytes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa

MAX_BYTES = 400_000_000
"""The largest image file that is read: as large as the raw pixels of the largest image that the codec decodes."""

RUN_BYTES = 1 << 20
"""A run is the images that begin in the same piece of this size of an archive: one read brings them all."""

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl"),
)
"""Suffixes of image files' names, in lower case. They only select files: a file's content decides how it is decoded."""

UNREADABLE = "unreadable:"
"""How the packing of a locator begins whose image cannot be stored; the rest is the cause for its manifest row."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "test": "test",
    "testing": "test",
}
"""The split that a folder, a file or a value of a table names, in lower case."""

OTHER_SUFFIXES = (
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".toml", ".md", ".rst", ".html"),
    *(".htm", ".log", ".py", ".pyc", ".ipynb", ".sh", ".m", ".mat", ".npy", ".npz", ".pkl", ".pickle", ".pt", ".pth"),
    *(".h5", ".hdf5", ".parquet", ".arrow", ".feather", ".db", ".sqlite", ".lmdb", ".mdb", ".tfrecord", ".rec", ".idx"),
    *(".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar", ".beton", ".md5", ".sha1", ".sha256"),
    *(".cls", ".pdf", ".doc", ".docx", ".xls", ".xlsx"),
    *(".mp4", ".avi", ".mov", ".mkv", ".webm", ".wav", ".mp3", ".flac"),
)
"""Suffixes of files that are no images, in lower case. A file of another suffix, or none, is decided by its content."""


class Locator(NamedTuple):
    """Where an image's bytes are stored: ``size`` bytes at ``offset`` of ``file``, a path below the source's root.
    ``size`` is 0 where only reading shows it.

    ``member`` is the image's name inside an archive (``n01440764.tar/n01440764_18.JPEG``), empty for a plain file.
    ``packing`` is empty where the bytes are stored as they are. Otherwise it is "KIND:…", where KIND selects the module
    (archives/reader.py) that reads the bytes, and the rest is that module's own. Bytes of ``file`` that are not UTF-8
    are surrogates, as in Python's own file names.
    """

    file: str
    member: str
    offset: int
    size: int
    packing: str = ""

    def __str__(self) -> str:
        place = f"@{self.offset}+{self.size}" if self.size else ""
        file = self.file if self.file.isascii() else _printable(self.file)
        return f"{file}!{self.member}{place}" if self.member else file

    @property
    def run(self) -> tuple[str, int]:
        """Images that have this in common are read together."""
        if self.packing.startswith(UNREADABLE):
            return self.packing, 0
        return self.file, self.offset // RUN_BYTES

    def unreadable(self, cause: str) -> Locator:
        """Returns a locator whose image gets a manifest row with this cause and is not stored."""
        return self._replace(packing=UNREADABLE + cause)


class Box(NamedTuple):
    """A bounding box in pixels of the source image. ``xmax`` and ``ymax`` are kept as the source states them."""

    wnid: str
    xmin: int
    ymin: int
    xmax: int
    ymax: int


def pixel(text: str) -> int:
    """Returns a coordinate of a box. Raises ValueError if it is not one: not decimal, infinite, more than 32 bits."""
    if len(text) > 32 or not text.isascii():
        raise ValueError(f"{text[:32]!r} is no coordinate")
    value = float(text)  # some tools write 12.0
    if not abs(value) < 1 << 31:  # not NaN either
        raise ValueError(f"{text!r} is no coordinate")
    return int(value)


class Record(NamedTuple):
    """One image of a source. ``wnids`` are its classes, the label first; empty in an unlabelled test split."""

    key: str
    wnids: tuple[str, ...]
    locator: Locator
    boxes: tuple[Box, ...] = ()


def key_of(name: str) -> str:
    """Returns a sample's key: its original file name without folders and suffix, e.g. ILSVRC2012_val_00000001."""
    return os.path.splitext(os.path.basename(name))[0]


def sorted_wnids(wnids: Iterable[str]) -> list[str]:
    """Returns the distinct wnids, sorted. A class index is a position in this list, everywhere inside imgtool."""
    return sorted(set(wnids))


BOX_TYPE = pa.struct([("wnid", pa.string()), *((side, pa.int32()) for side in ("xmin", "ymin", "xmax", "ymax"))])
RECORD_SCHEMA = pa.schema(
    [
        ("key", pa.large_string()),
        ("wnids", pa.list_(pa.string())),
        ("file", pa.large_string()),
        ("member", pa.large_string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("packing", pa.large_string()),
        ("boxes", pa.list_(BOX_TYPE)),
    ]
)
CHUNK = 1 << 16
"""Records per record batch."""


def to_table(records: Iterable[Record]) -> pa.Table:
    """Returns the records as a table: some 150 bytes per record instead of 700 as Python objects."""
    batches = []
    remaining = iter(records)
    while chunk := list(itertools.islice(remaining, CHUNK)):
        columns: dict[str, list[Any]] = {
            "key": [r.key for r in chunk],
            "wnids": [r.wnids for r in chunk],
            **{name: [r.locator[i] for r in chunk] for i, name in enumerate(Locator._fields)},
            "boxes": [[box._asdict() for box in r.boxes] for r in chunk],
        }
        arrays = [_array(columns[field.name], field.type) for field in RECORD_SCHEMA]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=RECORD_SCHEMA))
    return pa.Table.from_batches(batches, schema=RECORD_SCHEMA)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:  # names that are not UTF-8: Arrow keeps their bytes as they are
        raw = [value.encode("utf-8", "surrogateescape") for value in values]
        return pa.array(raw, pa.large_binary()).view(kind)


def _printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def from_table(table: pa.Table) -> Iterator[Record]:
    """Yields the records of a table that ``to_table`` made, in order."""
    for batch in table.to_batches(max_chunksize=1024):
        names = batch["file"].view(pa.large_binary()).to_pylist()
        for name, row in zip(names, batch.drop_columns("file").to_pylist(), strict=True):
            locator = Locator(
                name.decode("utf-8", "surrogateescape"), row["member"], row["offset"], row["size"], row["packing"]
            )
            yield Record(row["key"], tuple(row["wnids"]), locator, tuple(Box(**box) for box in row["boxes"]))
