"""The end of a prepare: the finished shards' rows become the manifests, the class table and dataset.json."""

from __future__ import annotations

import collections
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
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

MAX_WNIDS = 32
"""An image under more wnids is a placeholder, such as the page that dead links show: its rows do not list them all.
Listing them would take memory and time that grow with the square of their number."""
TALLIED = ["status", "class_index", "source_bytes", "bytes", "wnids", "position", "source_xxh3"]


@dataclass
class Tally:
    """Counts over a data set: samples by status (without details), and bytes of the source and of the stored samples.

    Of the stored samples: ``multi_class``: images that the source has under several wnids. ``placeholders``: images
    under more than MAX_WNIDS. ``also_in_train``: images of other splits whose bytes are in train too.
    ``stored_bytes_in``: the bytes of the source that they had. ``empty_classes``: the class indices without a sample in
    train, if there is one.
    """

    status: collections.Counter[str] = field(default_factory=collections.Counter)
    bytes_in: int = 0
    bytes_out: int = 0
    multi_class: int = 0
    placeholders: int = 0
    also_in_train: int = 0
    stored_bytes_in: int = 0
    empty_classes: list[int] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Samples stored or skipped."""
        return self.status.total()

    @property
    def skipped(self) -> int:
        return sum(n for status, n in self.status.items() if status.startswith("skipped"))


def commit(folder: Folder, plan: Plan, source: dict[str, Any], complete: bool) -> None:
    """Writes the manifests, the class table and, last, dataset.json, from the rows of all shards.

    A data set without a sample is marked incomplete, with the causes as its problem.
    """
    splits: dict[str, Any] = {}
    counts: dict[str, dict[int, int]] = {}
    for name in plan.splits:
        splits[name], counts[name] = _split(folder, name, [s for s in plan.shards() if s.split == name])
    write_table(folder, dataset.CLASS_TABLE, make_class_table(plan.selection.wnids, plan.source.ilsvrc2012_ids, counts))
    problem = "; ".join(plan.truncated) or None
    if not any(split["samples"] for split in splits.values()):
        complete, problem = False, f"no image could be stored: {first_causes(folder, list(splits))}"
    info = {
        "format": dataset.FORMAT,
        "complete": complete,
        "problem": problem,
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


def rows_of(folder: Folder, shard: Shard, columns: list[str] | None = None) -> tuple[dict[str, Any], pa.Table]:
    """Returns a finished shard's entry for dataset.json and its manifest rows, of all columns or only of these."""
    try:
        with folder.local_path(shard.rows_name) as path:
            table = pq.read_table(path, columns=columns)
    except FileNotFoundError:
        raise ImgtoolError(
            f"{folder.url}: the rows of shard {shard.name} disappeared during prepare; run the same command again"
        ) from None
    return json.loads(table.schema.metadata[b"shard"]), table


def is_whole(folder: Folder, name: str, rows: int) -> bool:
    """Whether a table of a finished data set has this number of rows and can be read. Reads all of it, in pieces."""
    try:
        with folder.local_path(name) as path, pq.ParquetFile(path) as file:
            return sum(batch.num_rows for batch in file.iter_batches()) == rows
    except (OSError, pa.ArrowException):
        return False


def _wnids_of_copies(folder: Folder, shards: Sequence[Shard]) -> dict[int, list[str]]:
    """The stored images that the split has under several wnids: hash of the source bytes → all those wnids, sorted.

    Images with the same bytes are the same image; those under more than MAX_WNIDS are left out. Two passes over the
    rows keep memory at 8 bytes per sample and at most MAX_WNIDS + 1 wnids per copied image.
    """
    hashes = [_hashes(rows_of(folder, shard, ["source_xxh3", "position"])[1]) for shard in shards]
    values, occurrences = np.unique(np.concatenate([np.array([], np.uint64), *hashes]), return_counts=True)
    copied = values[occurrences > 1]
    wnids: dict[int, set[str]] = collections.defaultdict(set)
    for shard, found in zip(shards, hashes, strict=True):
        if np.isin(found, copied).any():
            rows = _stored(rows_of(folder, shard, ["source_xxh3", "wnids", "position"])[1])
            rows = rows.filter(pc.is_in(rows["source_xxh3"], pa.array(copied)))
            for key, names in zip(rows["source_xxh3"].to_pylist(), rows["wnids"].to_pylist(), strict=True):
                if len(wnids[key]) <= MAX_WNIDS:
                    wnids[key].update(names)
    return {key: sorted(names) for key, names in wnids.items() if 1 < len(names) <= MAX_WNIDS}


def _stored(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.is_valid(rows["position"]))


def _hashes(rows: pa.Table) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The hashes of the source bytes of the stored rows."""
    return np.asarray(_stored(rows)["source_xxh3"].combine_chunks())


def _with_all_wnids(rows: pa.Table, wnids_of: dict[int, list[str]]) -> pa.Table:
    """Returns the rows with every wnid of each stored image; the record's own wnids come first."""
    if not wnids_of:
        return rows
    keys = pc.if_else(pc.is_valid(rows["position"]), rows["source_xxh3"], None).to_pylist()
    if wnids_of.keys().isdisjoint(keys):
        return rows
    wnids = [
        [*own, *(w for w in wnids_of.get(key, ()) if w not in own)]
        for own, key in zip(rows["wnids"].to_pylist(), keys, strict=True)
    ]
    column = rows.schema.get_field_index("wnids")
    return rows.set_column(column, MANIFEST.field("wnids"), pa.array(wnids, MANIFEST.field("wnids").type))


def tally(folder: Folder, splits: Sequence[str], classes: int) -> tuple[Tally, dict[str, int]]:
    """Counts the splits' manifests; returns the tally of all of them and the stored samples by split."""
    out, stored = Tally(), {}
    train: np.ndarray[Any, np.dtype[np.uint64]] | None = None
    for name in splits:
        rows = _read(folder, name, TALLIED)
        causes = pc.list_element(pc.split_pattern(rows["status"], ": "), 0)
        counted = pc.value_counts(causes).to_pylist()
        out.status.update({entry["values"]: entry["counts"] for entry in counted})
        out.bytes_in += pc.sum(rows["source_bytes"]).as_py() or 0
        rows = _stored(rows)
        stored[name] = rows.num_rows
        out.stored_bytes_in += pc.sum(rows["source_bytes"]).as_py() or 0
        out.bytes_out += pc.sum(rows["bytes"]).as_py() or 0
        out.multi_class += pc.sum(pc.greater(pc.list_value_length(rows["wnids"]), 1)).as_py() or 0
        out.placeholders += _placeholders(rows)
        if name == "train":
            train = _hashes(rows)
            out.empty_classes = np.setdiff1d(np.arange(classes), np.asarray(rows["class_index"])).tolist()
        elif train is not None:
            out.also_in_train += int(np.isin(_hashes(rows), train).sum())
    return out, stored


def _placeholders(rows: pa.Table) -> int:
    """The number of rows whose image is under more than MAX_WNIDS wnids."""
    rows = rows.filter(pc.greater(pc.list_value_length(rows["wnids"]), 0))
    if not rows.num_rows:
        return 0
    _, image, copies = np.unique(_hashes(rows), return_inverse=True, return_counts=True)
    names = pc.list_element(rows["wnids"].combine_chunks(), 0).dictionary_encode()
    wnid = np.asarray(names.indices if isinstance(names, pa.DictionaryArray) else names.combine_chunks().indices)
    pairs = np.unique(np.stack([image, wnid.astype(np.int64)]), axis=1)  # each image with each of its wnids
    wnids = np.bincount(pairs[0], minlength=len(copies))
    return int(copies[wnids > MAX_WNIDS].sum())


def first_causes(folder: Folder, splits: Sequence[str], most: int = 3) -> str:
    """Describes why samples of these splits were skipped: the first causes, each with its count and first image."""
    found: dict[str, list[str]] = {}
    for name in splits:
        rows = _read(folder, name, ["status", "source"]).to_pylist()
        for row in rows:
            kind, _, cause = row["status"].partition(":")
            if kind == "skipped":
                found.setdefault(cause.partition(": ")[0], []).append(row["source"])
    causes = [f"{cause} ({len(at):,}, the first is {at[0]})" for cause, at in list(found.items())[:most]]
    more = [f"{len(found) - most} more causes"] if len(found) > most else []
    return ", ".join([*causes, *more])


def _read(folder: Folder, split: str, columns: list[str]) -> pa.Table:
    with folder.local_path(f"{split}.parquet") as path:
        return pq.read_table(path, columns=columns)
