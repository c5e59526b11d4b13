"""The tables prepare leaves beside the shards: the manifest (a row a sample) and the label map (a row a class)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from imgtool.pipelines.records import BOX
from imgtool.pipelines.storage.folders import Folder
from imgtool.wordnet.imagenet.class_table import class_table

UNLABELLED = -1
"""The class index of a sample without a label."""

MANIFEST = pa.schema(
    [
        ("key", pa.string()),  # the original file name without its ending
        ("wnids", pa.list_(pa.string())),
        ("class_index", pa.int32()),
        ("width", pa.int32()),  # stored size; null where skipped, as are all stored_ columns
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("source", pa.string()),  # where the original bytes lie
        ("source_width", pa.int32()),
        ("source_height", pa.int32()),
        ("source_bytes", pa.int64()),
        ("source_xxh3", pa.uint64()),
        ("stored_xxh3", pa.uint64()),
        ("status", pa.string()),  # ok | repaired:CAUSE[,CAUSE] | skipped:CAUSE
        ("boxes", pa.list_(BOX)),  # in pixels of the source image
        ("shard", pa.int32()),  # a skipped sample keeps the shard it would have been in
        ("position", pa.int32()),  # in the shard; null where skipped
    ]
)

LABELS = pa.schema(
    [
        ("class_index", pa.int32()),
        ("wnid", pa.string()),
        ("synset", pa.string()),
        ("lemmas", pa.list_(pa.string())),
        ("name", pa.string()),
        ("gloss", pa.string()),
        ("ilsvrc2012_id", pa.int32()),
        ("hypernyms", pa.list_(pa.string())),
        ("path", pa.list_(pa.string())),
        ("train_count", pa.int64()),
        ("val_count", pa.int64()),
    ]
)


def write_table(folder: Folder, name: str, table: pa.Table) -> None:
    """Writes a parquet file whole or not at all."""
    with folder.writing(name) as path:
        pq.write_table(table, path, compression="zstd")


def label_map(wnids: Sequence[str], ilsvrc2012_ids: dict[str, int], counts: dict[str, dict[int, int]]) -> pa.Table:
    """The label map of a data set: what WordNet says of each class, and its stored samples a split.

    ``counts[split][class_index]``; ``ilsvrc2012_ids`` as the source's devkit states them win over the published ones.
    """
    table = class_table(list(wnids))
    # It comes sorted by wnid, which is the class order, except that a label map's targets have an order of their own.
    row_of = {wnid: row for row, wnid in enumerate(table["wnid"])}
    rows = [row_of[wnid] for wnid in wnids]
    columns: dict[str, list[Any]] = {name: [column[row] for row in rows] for name, column in table.items()}
    columns["class_index"] = list(range(len(wnids)))
    if ilsvrc2012_ids:
        columns["ilsvrc2012_id"] = [ilsvrc2012_ids.get(wnid) for wnid in wnids]
    for split in ("train", "val"):
        columns[f"{split}_count"] = [counts.get(split, {}).get(i, 0) for i in range(len(wnids))]
    return pa.table({name: columns[name] for name in LABELS.names}, schema=LABELS)
