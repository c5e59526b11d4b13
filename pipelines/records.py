"""What a source yields: a record names an image, its classes and where its bytes lie. It does not hold the bytes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from imgtool.wordnet.errors import SourceError

MAX_BYTES = 400_000_000
"""An image of more bytes than the largest one that is decoded has raw pixels is none: refused before it is read."""

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""How the names of image files end, in lower case; the content decides how a file is decoded."""


class Locator(NamedTuple):
    """Where an image's bytes lie: ``size`` bytes at ``offset`` of ``file`` (relative to the source's root).

    ``member`` names it inside an archive (``n01440764.tar/n01440764_18.JPEG``) and is empty for a plain file.
    ``packing`` is empty where the bytes lie as they are; else "KIND:…" in the words of the module in archives/ that
    reads them: see reader.py there.
    """

    file: str
    member: str
    offset: int
    size: int
    packing: str = ""

    def __str__(self) -> str:
        return f"{self.file}!{self.member}@{self.offset}+{self.size}" if self.member else self.file


class Box(NamedTuple):
    """A bounding box in pixels of the source image; xmax and ymax as the source states them."""

    wnid: str
    xmin: int
    ymin: int
    xmax: int
    ymax: int


class Record(NamedTuple):
    """One image of a source. ``wnids`` are its classes, the first one the label; none in an unlabelled test split."""

    key: str
    wnids: tuple[str, ...]
    locator: Locator
    boxes: tuple[Box, ...] = ()


def key_of(name: str) -> str:
    """A sample's key: its original file name without folders and ending, ILSVRC2012_val_00000001."""
    return os.path.splitext(os.path.basename(name))[0]


def sorted_wnids(wnids: Iterable[str]) -> list[str]:
    """The one class order used inside: sorted wnids, each once; class index = position."""
    return sorted(set(wnids))


BOX = pa.struct([("wnid", pa.string()), *((side, pa.int32()) for side in ("xmin", "ymin", "xmax", "ymax"))])
RECORDS = pa.schema(
    [
        ("key", pa.large_string()),
        ("wnids", pa.list_(pa.string())),
        ("file", pa.large_string()),
        ("member", pa.large_string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("packing", pa.large_string()),
        ("boxes", pa.list_(BOX)),
    ]
)
CHUNK = 1 << 16


def to_table(records: Iterable[Record]) -> pa.Table:
    """Records as columns: some 150 bytes each instead of the 700 that Python's objects take."""
    batches = []
    rest = iter(records)
    while chunk := list(itertools.islice(rest, CHUNK)):
        columns: dict[str, list[Any]] = {
            "key": [r.key for r in chunk],
            "wnids": [r.wnids for r in chunk],
            **{name: [r.locator[i] for r in chunk] for i, name in enumerate(Locator._fields)},
            "boxes": [[box._asdict() for box in r.boxes] for r in chunk],
        }
        arrays = [_array(columns[field.name], field.type) for field in RECORDS]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=RECORDS))
    return pa.Table.from_batches(batches, schema=RECORDS)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    # names that are not UTF-8 come with surrogates, which Arrow's strings refuse
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        name = next(value for value in values if isinstance(value, str) and not _is_utf8(value))
        raise SourceError(f"a file name is not UTF-8: {name!r}; rename it") from None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def from_table(table: pa.Table) -> Iterator[Record]:
    """The records of such a table, in order."""
    for batch in table.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            locator = Locator(row["file"], row["member"], row["offset"], row["size"], row["packing"])
            yield Record(row["key"], tuple(row["wnids"]), locator, tuple(Box(**box) for box in row["boxes"]))
