"""What a source yields: a record names a picture, its classes and where its bytes lie. It does not hold the bytes."""

from __future__ import annotations

import collections
import functools
import importlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa

from imgtool.pipelines.storage.folders import RandomFile, join, open_folder
from imgtool.wordnet.errors import ImageError, SourceError

MAX_BYTES = 400_000_000
"""A picture of more bytes than the largest one that is decoded has raw pixels is none: refused before it is read."""


class Locator(NamedTuple):
    """Where a picture's bytes lie: ``size`` bytes at ``offset`` of ``file`` (relative to the source's root).

    ``member`` names it inside an archive (``n01440764.tar/n01440764_18.JPEG``) and is empty for a plain file.
    ``packing`` is empty where the bytes lie as they are; else "KIND:…" in the words of the module that PACKINGS names,
    whose ``unpack(file, locator)`` reads them.
    """

    file: str
    member: str
    offset: int
    size: int
    packing: str = ""

    def __str__(self) -> str:
        return f"{self.file}!{self.member}@{self.offset}+{self.size}" if self.member else self.file


PACKINGS = {
    "deflate": "imgtool.pipelines.archives.zip",
    "parquet": "imgtool.pipelines.archives.parquet",
}


class Box(NamedTuple):
    """A bounding box in pixels of the source picture; xmax and ymax as the source states them."""

    wnid: str
    xmin: int
    ymin: int
    xmax: int
    ymax: int


class Record(NamedTuple):
    """One picture of a source. ``wnids`` are its classes, the first one the label; none in an unlabelled test split."""

    key: str
    wnids: tuple[str, ...]
    locator: Locator
    boxes: tuple[Box, ...] = ()


class LocatorReader:
    """Reads the bytes of locators below ``root`` (a path or URL), keeping the files of the last few archives open."""

    MAX_OPEN = 64
    AHEAD = 32
    """Pictures of a remote source asked for before they are needed: a request takes longer than a recode."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._folder = open_folder(root)
        self._open: dict[str, RandomFile] = {}

    def read(self, locator: Locator) -> bytes:
        """The picture's bytes. Raises SourceError if the file is gone or has become shorter, ImageError if these bytes
        alone are no good: too many, or packed and damaged."""
        data = _read(self.root, self._file(locator), locator)
        if not locator.member:
            # A plain file is read once: thousands of open files would meet the process's limit.
            self._open.pop(locator.file).close()
        return data

    def read_many(self, locators: Iterable[Locator]) -> Iterator[bytes | ImageError]:
        """The bytes of each in turn, or what is wrong with them; from a remote source several are under way at once."""
        if not self._folder.remote:
            for locator in locators:
                yield _or_error(functools.partial(self.read, locator))
            return
        with ThreadPoolExecutor(self.AHEAD) as pool:
            rest = iter(locators)
            under_way: collections.deque[Future[bytes]] = collections.deque()
            try:
                while True:
                    for locator in itertools.islice(rest, self.AHEAD - len(under_way)):
                        under_way.append(pool.submit(_read, self.root, self._file(locator), locator))
                    if not under_way:
                        return
                    yield _or_error(under_way.popleft().result)
            finally:
                for future in under_way:
                    future.cancel()

    def _file(self, locator: Locator) -> RandomFile:
        if locator.file not in self._open:
            while len(self._open) >= self.MAX_OPEN:
                self._open.pop(next(iter(self._open))).close()
            try:
                self._open[locator.file] = self._folder.open(locator.file)
            except OSError as error:
                raise SourceError(f"{join(self.root, locator.file)}: {error.strerror or error}") from error
        return self._open[locator.file]

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def __enter__(self) -> LocatorReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _or_error(read: Callable[[], bytes]) -> bytes | ImageError:
    try:
        return read()
    except ImageError as error:
        return error


def _read(root: str, file: RandomFile, locator: Locator) -> bytes:
    if locator.size > MAX_BYTES:
        raise ImageError(f"{locator.size} bytes are too many for a picture")
    try:
        data = _unpacker(locator.packing)(file, locator) if locator.packing else file.read(locator.offset, locator.size)
    except OSError as error:
        raise SourceError(f"{join(root, locator.file)}: {error.strerror or error}") from error
    if len(data) < locator.size:
        raise SourceError(f"{locator}: the file has become shorter while it was being read")
    return data


def _unpacker(packing: str) -> Callable[[RandomFile, Locator], bytes]:
    unpack: Callable[[RandomFile, Locator], bytes] = importlib.import_module(PACKINGS[packing.partition(":")[0]]).unpack
    return unpack


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
