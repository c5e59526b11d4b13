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
from imgtool.pipelines.records import from_table
from imgtool.pipelines.shards.beton import PAGE_SIZE, BetonWriter, page_size_for
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

    ``records`` is a table of schema records.RECORD_SCHEMA in the order in which they are read; ``labels`` are class
    indices, -1 if unlabelled. ``order`` lists the rows of ``records`` in stored order.
    """

    out: str
    root: str
    shard: Shard
    records: pa.Table
    labels: Sequence[int]
    order: Sequence[int]
    settings: Settings


class Skip(NamedTuple):
    """A skipped sample, for messages."""

    key: str
    source: str
    cause: str


OnProgress = Callable[[int, list[Skip]], None]
"""Called with the number of samples done since the last call, and the skipped ones among them."""


class _Writers:
    """The files of one shard, one per format. Each image is recoded once for all formats."""

    def __init__(
        self, stack: contextlib.ExitStack, folder: Folder, shard: Shard, settings: Settings, sizes: Sequence[int]
    ) -> None:
        self.paths: dict[str, Path] = {}

        def open_file(ending: str) -> Path:
            name = shard.name + ending
            self.paths[name] = stack.enter_context(folder.atomic_write(name))
            return self.paths[name]

        self._raw = settings.store == "raw"
        self._beton = self._wds = None
        if "beton" in settings.formats:
            page_size = page_size_for(sum(sizes), max(sizes))
            self._beton = BetonWriter(open_file(".beton"), len(sizes), page_size)
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

    Images are read and recoded in the source's order, kept in memory, and then written in stored order. Files are
    written atomically, the rows last. A shard whose samples are all skipped has rows but no files.
    """
    folder = open_folder(task.out)
    rows: dict[str, list[Any]] = {name: [] for name in MANIFEST.names}  # columns, so that few objects are kept
    kept: list[codec.Recoded | None] = []
    for row, recoded in _samples(task):
        for name, value in row.items():
            rows[name].append(value)
        kept.append(recoded)
        skips = [] if recoded else [Skip(row["key"], row["source"], row["status"].partition(":")[2])]
        report(1, skips)
    files = _write_files(folder, task, rows, kept)
    entry = {"index": task.shard.index, "samples": sum(map(bool, kept)), "files": files}
    table = pa.table(rows, schema=MANIFEST).take(task.order)
    write_table(folder, task.shard.rows_name, table.replace_schema_metadata({"shard": json.dumps(entry)}))


def _write_files(
    folder: Folder, task: ShardTask, rows: dict[str, list[Any]], kept: list[codec.Recoded | None]
) -> list[dict[str, Any]]:
    """Writes the shard's files and sets the samples' positions in ``rows``.

    Returns the files' entries in dataset.json, none if no sample is stored.
    """
    stored = [(i, recoded) for i in task.order if (recoded := kept[i])]
    if not stored:
        return []
    with contextlib.ExitStack() as stack:
        sizes = [len(recoded.data) for _, recoded in stored]
        writers = _Writers(stack, folder, task.shard, task.settings, sizes)
        try:
            for i, recoded in stored:
                rows["position"][i] = writers.add(rows["key"][i], recoded, task.labels[i])
            writers.close()
        except BaseException:
            writers.abort()
            raise
        return [
            {"path": name, "bytes": os.path.getsize(path), "xxh3": file_xxh3(path)}
            for name, path in writers.paths.items()
        ]


def _samples(task: ShardTask) -> Iterator[tuple[dict[str, Any], codec.Recoded | None]]:
    """Reads and recodes the records in their order; yields manifest rows and what to store, None if it is skipped."""
    records = list(from_table(task.records))
    with LocatorReader(task.root) as reader:
        images = reader.read_many(record.locator for record in records)
        for record, label, data in zip(records, task.labels, images, strict=True):
            row = dict.fromkeys(MANIFEST.names) | {
                "key": record.key,
                "wnids": list(record.wnids),
                "class_index": label,
                "source": str(record.locator),
                "source_bytes": record.locator.size,
                "boxes": [box._asdict() for box in record.boxes],
                "shard": task.shard.index,
            }
            try:
                if isinstance(data, ImageError):
                    raise data
                yield row, _recode(data, task.settings, row)
            except ImageError as error:
                row["status"] = f"skipped:{error}"
                yield row, None


def _recode(data: bytes, settings: Settings, row: dict[str, Any]) -> codec.Recoded:
    """Recodes one image, and sets the columns of its manifest row that depend on its bytes.

    Raises ImageError if the image is to be skipped; the columns of the source's bytes are set all the same.
    """
    row |= {"source_bytes": len(data), "source_xxh3": xxhash.xxh3_64_intdigest(data)}
    recoded = settings.recode(data)
    if len(recoded.data) > PAGE_SIZE:
        raise ImageError(f"{len(recoded.data)} bytes when recoded do not fit a page; lower --max-side")
    row |= {
        "width": recoded.width,
        "height": recoded.height,
        "bytes": len(recoded.data),
        "source_width": recoded.source_width,
        "source_height": recoded.source_height,
        "stored_xxh3": xxhash.xxh3_64_intdigest(recoded.data),
        "status": "repaired:" + ",".join(recoded.repairs) if recoded.repairs else "ok",
    }
    return recoded
