"""A shard task: reads, recodes and writes the samples of one shard. It is the unit of work of a worker."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import xxhash

from imgtool.pipelines import codec
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.dataset.manifest import MANIFEST, write_table
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.records import Record, from_table
from imgtool.pipelines.shards.beton import PAGE_SIZE, BetonWriter
from imgtool.pipelines.shards.webdataset import WebDatasetWriter
from imgtool.pipelines.storage.folders import Folder, open_folder
from imgtool.pipelines.storage.hashes import file_xxh3
from imgtool.wordnet.errors import ImageError

PARTS = ".parts"
"""The folder of the finished shards' manifest rows until the commit. A shard whose rows are here is complete."""


@dataclass(frozen=True)
class Shard:
    """Shard ``index`` of ``split``: the split's records [begin, end) in stored order."""

    split: str
    index: int
    begin: int
    end: int

    @property
    def name(self) -> str:
        return f"{self.split}/{self.index:05d}"

    @property
    def rows_name(self) -> str:
        return f"{PARTS}/{self.split}-{self.index:05d}.parquet"


@dataclass(frozen=True)
class ShardTask:
    """A shard to make. ``out`` (the output folder) and ``root`` (the source's root) are paths or URLs.

    ``records`` is a table of schema records.RECORD_SCHEMA in stored order; ``labels`` are class indices, -1 if
    unlabelled.
    """

    out: str
    root: str
    shard: Shard
    records: pa.Table
    labels: Sequence[int]
    settings: Settings


class Skip(NamedTuple):
    """A skipped sample, for messages."""

    key: str
    source: str
    cause: str


OnProgress = Callable[[int, list[Skip]], None]
"""Called with the number of samples done since the last call, and the skipped ones among them."""


class _NothingStored(Exception):
    """Every sample of the shard was skipped, so its files are discarded."""


class _Writers:
    """The files of one shard, one per format. Each image is recoded once for all formats."""

    def __init__(self, stack: contextlib.ExitStack, folder: Folder, shard: Shard, settings: Settings) -> None:
        self.paths: dict[str, Path] = {}

        def open_file(ending: str) -> Path:
            name = shard.name + ending
            self.paths[name] = stack.enter_context(folder.atomic_write(name))
            return self.paths[name]

        self._raw = settings.store == "raw"
        self._beton = self._wds = None
        if "beton" in settings.formats:
            self._beton = BetonWriter(open_file(".beton"), shard.end - shard.begin)
        if "wds" in settings.formats:
            self._wds = WebDatasetWriter(open_file(".tar"), open_file(".idx"))

    def add(self, key: str, recoded: codec.Recoded, label: int) -> int:
        position = -1
        if self._beton:
            position = self._beton.add(recoded.data, recoded.width, recoded.height, label, self._raw)
        if self._wds:
            position = self._wds.add(key, recoded.data, label)
        return position

    def close(self) -> None:
        for writer in (self._beton, self._wds):
            if writer:
                writer.close()

    def abort(self) -> None:
        for writer in (self._beton, self._wds):
            if writer:
                writer.abort()


def write_shard(task: ShardTask, report: OnProgress) -> None:
    """Makes one shard and its manifest rows.

    Files are written atomically, the rows last. A shard whose samples are all skipped has rows but no files.
    """
    folder, shard = open_folder(task.out), task.shard
    rows: dict[str, list[Any]] = {name: [] for name in MANIFEST.names}
    files: list[dict[str, Any]] = []
    stored = 0
    with contextlib.suppress(_NothingStored), contextlib.ExitStack() as stack:
        writers = _Writers(stack, folder, shard, task.settings)
        try:
            for row, skip in _samples(task, writers):
                for name, value in row.items():
                    rows[name].append(value)
                stored += skip is None
                report(1, [skip] if skip else [])
            writers.close()
        except BaseException:
            writers.abort()
            raise
        if not stored:
            raise _NothingStored
        for name, path in writers.paths.items():
            files.append({"path": name, "bytes": os.path.getsize(path), "xxh3": file_xxh3(path)})
    entry = {"index": shard.index, "samples": stored, "files": files}
    table = pa.table(rows, schema=MANIFEST).replace_schema_metadata({"shard": json.dumps(entry)})
    write_table(folder, shard.rows_name, table)


def _samples(task: ShardTask, writers: _Writers) -> Iterator[tuple[dict[str, Any], Skip | None]]:
    """Yields the manifest row of each record, and a `Skip` if it was skipped."""
    records = list(from_table(task.records))
    with LocatorReader(task.root) as reader:
        images = reader.read_many(record.locator for record in records)
        for record, label in zip(records, task.labels, strict=True):
            row = dict.fromkeys(MANIFEST.names)
            row |= {
                "key": record.key,
                "wnids": list(record.wnids),
                "class_index": label,
                "source": str(record.locator),
                "source_bytes": record.locator.size,
                "boxes": [box._asdict() for box in record.boxes],
                "shard": task.shard.index,
            }
            try:
                data = next(images)
                if isinstance(data, ImageError):
                    raise data
                row |= _stored(record, label, data, task.settings, writers, row)
                yield row, None
            except ImageError as error:
                row["status"] = f"skipped:{error}"
                yield row, Skip(record.key, str(record.locator), str(error))


def _stored(
    record: Record, label: int, data: bytes, settings: Settings, writers: _Writers, row: dict[str, Any]
) -> dict[str, Any]:
    """Recodes and writes one image; returns the remaining columns of its manifest row.

    Sets the columns of the source's bytes in ``row`` first, so that a skipped image has them too. Raises ImageError if
    the image is to be skipped.
    """
    row |= {"source_bytes": len(data), "source_xxh3": xxhash.xxh3_64_intdigest(data)}
    recoded = settings.recode(data)
    if len(recoded.data) > PAGE_SIZE:
        raise ImageError(f"{len(recoded.data)} bytes when recoded do not fit a page; lower --max-side")
    return {
        "width": recoded.width,
        "height": recoded.height,
        "bytes": len(recoded.data),
        "source_width": recoded.source_width,
        "source_height": recoded.source_height,
        "stored_xxh3": xxhash.xxh3_64_intdigest(recoded.data),
        "status": "repaired:" + ",".join(recoded.repairs) if recoded.repairs else "ok",
        "position": writers.add(record.key, recoded, label),
    }
