"""The tables that prepare writes beside the shards: the manifest (one row per record) and the class table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from imgtool.pipelines.records import BOX_TYPE
from imgtool.pipelines.storage.folders import Folder
from imgtool.wordnet.imagenet.class_table import class_table

UNLABELLED = -1
"""The class index of a sample without a label."""

MANIFEST = pa.schema(
    [
        ("key", pa.string()),  # the original file name without its ending
        ("wnids", pa.list_(pa.string())),
        ("class_index", pa.int32()),
        ("width", pa.int32()),  # pixels, as stored; null if skipped, like bytes and stored_xxh3
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("source", pa.string()),  # the locator of the original bytes
        ("source_width", pa.int32()),
        ("source_height", pa.int32()),
        ("source_bytes", pa.int64()),
        ("source_xxh3", pa.uint64()),
        ("stored_xxh3", pa.uint64()),
        ("status", pa.string()),  # ok | repaired:CAUSE[,CAUSE] | skipped:CAUSE
        ("boxes", pa.list_(BOX_TYPE)),  # in pixels of the source image
        ("shard", pa.int32()),  # a skipped sample has the shard that it would have been in
        ("position", pa.int32()),  # within the shard; null if skipped
    ]
)

CLASS_TABLE = pa.schema(
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
    """Writes a parquet file atomically."""
    with folder.atomic_write(name) as path:
        pq.write_table(table, path, compression="zstd")


def make_class_table(
    wnids: Sequence[str], ilsvrc2012_ids: dict[str, int], counts: dict[str, dict[int, int]]
) -> pa.Table:
    """Makes the class table of a data set: WordNet's facts about each class, and its stored samples per split.

    ``counts[split][class_index]``. ``ilsvrc2012_ids`` from the source's devkit take precedence over the published ones.
    """
    table = class_table(list(wnids))
    # Its rows are sorted by wnid. That is the class order too, except for a label map's targets.
    row_of = {wnid: row for row, wnid in enumerate(table["wnid"])}
    rows = [row_of[wnid] for wnid in wnids]
    columns: dict[str, list[Any]] = {name: [column[row] for row in rows] for name, column in table.items()}
    columns["class_index"] = list(range(len(wnids)))
    if ilsvrc2012_ids:
        columns["ilsvrc2012_id"] = [ilsvrc2012_ids.get(wnid) for wnid in wnids]
    for split in ("train", "val"):
        columns[f"{split}_count"] = [counts.get(split, {}).get(i, 0) for i in range(len(wnids))]
    return pa.table({name: columns[name] for name in CLASS_TABLE.names}, schema=CLASS_TABLE)
