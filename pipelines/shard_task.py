"""One shard's work: read, recode, write; the unit that prepare hands to a worker."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from imgtool.pipelines import codec
from imgtool.pipelines.atomic import replacing, sync
from imgtool.pipelines.manifest import MANIFEST, write_table
from imgtool.pipelines.records import LocatorReader, Record
from imgtool.pipelines.shards.beton import PAGE_SIZE, BetonWriter
from imgtool.wordnet.errors import ImageError
from imgtool.wordnet.relabel import LabelMap

PARTS = ".parts"
"""Where finished shards' manifest rows wait for the commit. A shard with its rows here is whole."""


@dataclass(frozen=True)
class Settings:
    """What shapes the output besides the source's bytes. Sizes in pixels, 0 is no bound; ``shard_size``: MB (10^6).

    ``classes`` is a query for the classes to keep ("" for all), ``labelmap`` gathers them into other targets.
    """

    max_side: int = 500
    short_side: int = 0
    quality: int = 90
    exif: str = "apply"
    seed: int = 0
    shard_size: int = 256
    classes: str = ""
    labelmap: LabelMap | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON, as dataset.json has it."""
        out: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return out | {"labelmap": self.labelmap.to_dict() if self.labelmap else None}

    def recode(self, data: bytes) -> codec.Recoded:
        return codec.recode(
            data,
            max_side=self.max_side,
            short_side=self.short_side,
            quality=self.quality,
            exif=self.exif == "apply",
        )


@dataclass(frozen=True)
class ShardTask:
    """Shard ``index`` of ``split``: its records in order and their class indices; paths below ``out``."""

    out: str
    root: str
    split: str
    index: int
    records: Sequence[Record]
    labels: Sequence[int]
    settings: Settings

    @property
    def path(self) -> str:
        return f"{self.split}/{self.index:05d}.beton"

    @property
    def rows_path(self) -> Path:
        return Path(self.out) / PARTS / f"{self.split}-{self.index:05d}.parquet"


@dataclass
class Tally:
    """What has been done so far: samples by status, and bytes in and out."""

    status: collections.Counter[str] = field(default_factory=collections.Counter)
    bytes_in: int = 0
    bytes_out: int = 0

    @property
    def done(self) -> int:
        return self.status.total()

    @property
    def skipped(self) -> int:
        return sum(n for status, n in self.status.items() if status.startswith("skipped"))

    def add_rows(self, rows: pa.Table) -> None:
        self.status.update(s.split(": ")[0] for s in rows["status"].to_pylist())
        self.bytes_in += sum(rows["source_bytes"].to_pylist())
        self.bytes_out += sum(b or 0 for b in rows["bytes"].to_pylist())


def write_shard(task: ShardTask, progress: Callable[[int, int], None]) -> None:
    """Makes one shard and its manifest rows; calls ``progress(samples, skipped)`` as it goes.

    The shard appears whole under its name, then its rows do. A shard of which every sample is skipped has rows only.
    """
    path = Path(task.out) / task.path
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[Any]] = {name: [] for name in MANIFEST.names}
    with LocatorReader(task.root) as reader, replacing(path) as temporary:
        writer = BetonWriter(temporary, len(task.records))
        try:
            stored = 0
            for record, label in zip(task.records, task.labels, strict=True):
                row = _sample(record, label, reader, writer, task)
                for name, value in row.items():
                    rows[name].append(value)
                kept = row["position"] is not None
                stored += kept
                progress(1, int(not kept))
            writer.close()
        except BaseException:
            writer.abort()
            raise
        digest = file_xxh3(temporary)
        size = os.path.getsize(temporary)
    if not stored:
        path.unlink()
        sync(path.parent)
    table = pa.table(rows, schema=MANIFEST)
    shard = {"samples": str(stored), "bytes": str(size), "xxh3": digest}
    task.rows_path.parent.mkdir(exist_ok=True)
    write_table(task.rows_path, table.replace_schema_metadata(shard))


def _sample(record: Record, label: int, reader: LocatorReader, writer: BetonWriter, task: ShardTask) -> dict[str, Any]:
    data = reader.read(record.locator)
    row: dict[str, Any] = dict.fromkeys(MANIFEST.names)
    row.update(
        key=record.key,
        wnids=list(record.wnids),
        class_index=label,
        source=str(record.locator),
        source_bytes=len(data),
        source_xxh3=xxhash.xxh3_64_intdigest(data),
        boxes=[box._asdict() for box in record.boxes],
        shard=task.index,
    )
    try:
        recoded = task.settings.recode(data)
        if len(recoded.data) > PAGE_SIZE:
            raise ImageError(f"{len(recoded.data)} bytes when recoded do not fit a page; lower --max-side")
    except ImageError as error:
        row["status"] = f"skipped:{error}"
        return row
    row.update(
        width=recoded.width,
        height=recoded.height,
        bytes=len(recoded.data),
        source_width=recoded.source_width,
        source_height=recoded.source_height,
        stored_xxh3=xxhash.xxh3_64_intdigest(recoded.data),
        status="repaired:" + ",".join(recoded.repairs) if recoded.repairs else "ok",
        position=writer.add(recoded.data, recoded.width, recoded.height, label),
    )
    return row


def read_rows(task: ShardTask) -> pa.Table | None:
    """The manifest rows of a finished shard, or None if the shard is still to be made."""
    if not task.rows_path.exists():
        return None
    rows = pq.read_table(task.rows_path)
    return rows if is_whole(Path(task.out), shard_entry(rows, task.path)) else None


def is_whole(out: Path, shard: dict[str, Any]) -> bool:
    """Whether the shard of an entry lies there in its full size; one without samples has no file."""
    path = out / shard["path"]
    return shard["samples"] == 0 or (path.exists() and path.stat().st_size == shard["bytes"])


def shard_entry(rows: pa.Table, path: str) -> dict[str, Any]:
    """What dataset.json says of a shard, from the metadata its rows carry."""
    meta = {key.decode(): value.decode() for key, value in rows.schema.metadata.items()}
    return {"path": path, "samples": int(meta["samples"]), "bytes": int(meta["bytes"]), "xxh3": meta["xxh3"]}


def file_xxh3(path: str | Path) -> str:
    """The xxh3-64 of a file's bytes, in hex."""
    digest = xxhash.xxh3_64()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
