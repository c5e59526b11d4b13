"""The end of a prepare: the finished shards' rows become the manifests, the class table and dataset.json."""

from __future__ import annotations

import collections
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imgtool.pipelines import dataset
from imgtool.pipelines.dataset.manifest import MANIFEST, make_class_table, write_table
from imgtool.pipelines.prepare.plan import Plan
from imgtool.pipelines.prepare.shard_task import Shard
from imgtool.pipelines.storage.folders import Folder, write_text
from imgtool.wordnet.errors import ImgtoolError


@dataclass
class Tally:
    """Counts over a data set: samples by status (without details), and bytes of the source and of the stored samples.

    ``multi_class``: images that the source has under several wnids. ``also_in_train``: images of other splits whose
    bytes are in train too.
    """

    status: collections.Counter[str] = field(default_factory=collections.Counter)
    bytes_in: int = 0
    bytes_out: int = 0
    multi_class: int = 0
    also_in_train: int = 0

    @property
    def done(self) -> int:
        """Samples stored or skipped."""
        return self.status.total()

    @property
    def skipped(self) -> int:
        return sum(n for status, n in self.status.items() if status.startswith("skipped"))


def commit(folder: Folder, plan: Plan, source: dict[str, Any], complete: bool) -> None:
    """Writes the manifests, the class table and, last, dataset.json, from the rows of all shards."""
    splits: dict[str, Any] = {}
    counts: dict[str, dict[int, int]] = {}
    for name in plan.splits:
        splits[name], counts[name] = _split(folder, name, [s for s in plan.shards() if s.split == name])
    write_table(folder, dataset.CLASS_TABLE, make_class_table(plan.selection.wnids, plan.source.ilsvrc2012_ids, counts))
    info = {
        "format": dataset.FORMAT,
        "complete": complete,
        "problem": "; ".join(plan.truncated) or None,
        "source": source,
        "settings": plan.settings.to_dict(),
        "classes": len(plan.selection.wnids),
        "splits": splits,
    }
    write_text(folder, dataset.INFO, json.dumps(info, indent=1) + "\n")


def _split(folder: Folder, name: str, shards: Sequence[Shard]) -> tuple[dict[str, Any], dict[int, int]]:
    """Writes a split's manifest. Returns its entry for dataset.json and the number of stored samples by class index.

    Each shard is one row group, so that memory does not grow with the data set.
    """
    wnids_of = _wnids_of_copies(folder, shards)
    counts: collections.Counter[int] = collections.Counter()
    entries, rows = [], 0
    with folder.atomic_write(f"{name}.parquet") as path, pq.ParquetWriter(path, MANIFEST, compression="zstd") as writer:
        for shard in shards:
            entry, table = rows_of(folder, shard)
            writer.write_table(_with_all_wnids(table, wnids_of).replace_schema_metadata(None))
            stored = table.filter(pc.is_valid(table["position"]))
            counts.update(stored["class_index"].to_pylist())
            rows += table.num_rows
            if entry["samples"]:
                entries.append(entry)
    samples = sum(entry["samples"] for entry in entries)
    return {"samples": samples, "skipped": rows - samples, "shards": entries}, counts


def rows_of(folder: Folder, shard: Shard) -> tuple[dict[str, Any], pa.Table]:
    """Returns a finished shard's entry for dataset.json and its manifest rows."""
    try:
        with folder.local_path(shard.rows_name) as path:
            table = pq.read_table(path)
    except FileNotFoundError:
        raise ImgtoolError(
            f"{folder.url}: the rows of shard {shard.name} disappeared during prepare; run the same command again"
        ) from None
    return json.loads(table.schema.metadata[b"shard"]), table


def _wnids_of_copies(folder: Folder, shards: Sequence[Shard]) -> dict[int, list[str]]:
    """The images that the split has under several wnids: hash of the source bytes → all those wnids, sorted.

    Images with the same bytes are the same image. Two passes over the rows keep memory at 8 bytes per sample.
    """
    hashes = [_hashes(rows_of(folder, shard)[1]) for shard in shards]
    values, occurrences = np.unique(
        np.concatenate([h for h in hashes if len(h)] or [np.array([], np.uint64)]), return_counts=True
    )
    copied = values[occurrences > 1]
    wnids: dict[int, set[str]] = collections.defaultdict(set)
    for shard, found in zip(shards, hashes, strict=True):
        if np.isin(found, copied).any():
            table = rows_of(folder, shard)[1]
            table = table.filter(pc.is_in(table["source_xxh3"], pa.array(copied)))
            for key, names in zip(table["source_xxh3"].to_pylist(), table["wnids"].to_pylist(), strict=True):
                wnids[key].update(names)
    return {key: sorted(names) for key, names in wnids.items() if len(names) > 1}


def _hashes(rows: pa.Table) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.asarray(rows["source_xxh3"].drop_null().combine_chunks())


def _with_all_wnids(rows: pa.Table, wnids_of: dict[int, list[str]]) -> pa.Table:
    """Returns the rows with every wnid of each image; the record's own wnids come first."""
    if not wnids_of or not (set(rows["source_xxh3"].to_pylist()) & wnids_of.keys()):
        return rows
    wnids = [
        [*own, *(w for w in wnids_of.get(key, ()) if w not in own)]
        for own, key in zip(rows["wnids"].to_pylist(), rows["source_xxh3"].to_pylist(), strict=True)
    ]
    column = rows.schema.get_field_index("wnids")
    return rows.set_column(column, MANIFEST.field("wnids"), pa.array(wnids, MANIFEST.field("wnids").type))


def tally(folder: Folder, splits: Sequence[str]) -> tuple[Tally, dict[str, int]]:
    """Counts the splits' manifests; returns the tally of all of them and the stored samples by split."""
    out, stored = Tally(), {}
    train: np.ndarray[Any, np.dtype[np.uint64]] | None = None
    for name in splits:
        with folder.local_path(f"{name}.parquet") as path:
            rows = _read(path)
        causes = pc.list_element(pc.split_pattern(rows["status"], ": "), 0)
        counted = pc.value_counts(causes).to_pylist()
        out.status.update({entry["values"]: entry["counts"] for entry in counted})
        out.bytes_in += pc.sum(rows["source_bytes"]).as_py() or 0
        out.bytes_out += pc.sum(rows["bytes"]).as_py() or 0
        out.multi_class += pc.sum(pc.greater(pc.list_value_length(rows["wnids"]), 1)).as_py() or 0
        stored[name] = rows.num_rows - rows["position"].null_count
        if name == "train":
            train = _hashes(rows)
        elif train is not None:
            out.also_in_train += int(np.isin(_hashes(rows), train).sum())
    return out, stored


def _read(path: Path) -> pa.Table:
    return pq.read_table(path, columns=["status", "source_bytes", "bytes", "wnids", "position", "source_xxh3"])
