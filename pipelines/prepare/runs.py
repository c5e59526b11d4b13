"""The order of a split's samples: random, and yet read in runs.

A run is a contiguous piece of a source's file, about a megabyte: neighbours in a tar or zip, or a row group of parquet.
One read brings all its images. Runs are permuted as wholes and cut into shards, and the samples of each shard are
permuted again. A shard is read run by run, so a disk seeks once per run instead of once per image.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from imgtool.pipelines import rng
from imgtool.pipelines.records import RUN_BYTES

Int64s = npt.NDArray[np.int64]

RUNS_PER_SHARD = 512
"""A shard has about this number of runs where its samples suffice, so that it has nearly as many classes as a random
one: at least about C (1 - exp(-512 / C)) of a source of C classes that is sorted by class."""
GROUPS_PER_SHARD = 32
"""The same for row groups of parquet, which are cut only if their rows are sorted by class: each piece costs a read of
the whole group."""


def runs_of(records: pa.Table, chosen: Int64s, labels: Int64s, per_run: int) -> Int64s:
    """The run of each chosen record, int64 [chosen]; runs are numbered from 0 in the source's order.

    ``records`` is a table of records.RECORD_SCHEMA. ``chosen`` are rows of it, ``labels`` int64 [records] class
    indices. A piece with more than about ``per_run`` images is cut into equal runs of about as many; a row group is cut
    only where its rows are sorted by class, and then into larger runs.
    """
    files, offsets = _codes(records["file"])[chosen], np.asarray(records["offset"])[chosen]
    grouped = np.asarray(pc.starts_with(_flat(records["packing"]), "parquet:"))[chosen]
    inside = np.asarray(pc.not_equal(_flat(records["member"]), ""))[chosen]
    # A plain file is a run by itself.
    windows = _numbers(files, np.where(inside, offsets // RUN_BYTES, np.arange(len(chosen))))
    wanted = np.full(len(chosen), per_run)
    if grouped.any():
        cut = not _mixed(windows[grouped], labels[chosen][grouped])
        wanted[grouped] = per_run * RUNS_PER_SHARD // GROUPS_PER_SHARD if cut else len(chosen)
    images = np.bincount(windows)[windows]
    # Rounded: ten images where nine are wanted stay one run, because each run costs a read.
    pieces = np.maximum((2 * images + wanted) // (2 * wanted), 1)
    return _numbers(windows, rank(windows) * pieces // images)


def order(runs: Int64s, key: tuple[int, ...]) -> Int64s:
    """The positions 0 … len(runs) - 1 with the runs in random order and each run whole."""
    rank = np.empty(runs.max(initial=-1) + 1, np.int64)
    rank[rng.permutation(key, len(rank))] = np.arange(len(rank))
    return np.argsort(rank[runs], kind="stable")


def shuffled(order: Int64s, bounds: list[int], key: tuple[int, ...]) -> Int64s:
    """The order with the samples of each shard, [bounds[i], bounds[i + 1]), permuted among themselves."""
    parts = [
        order[begin:end][rng.permutation((*key, shard), end - begin)]
        for shard, (begin, end) in enumerate(itertools.pairwise(bounds))
    ]
    return np.concatenate([*parts, np.zeros(0, np.int64)])


def in_file_order(records: pa.Table, chosen: Int64s) -> Int64s:
    """The positions of a table's records in the order of their bytes, file by file, int64 [records].

    ``chosen`` are their numbers in the source, which decide between the rows of a row group.
    """
    return np.lexsort((chosen, np.asarray(records["offset"]), _codes(records["file"])))


def _mixed(groups: Int64s, labels: Int64s) -> bool:
    """Whether the row groups hold at least half as many classes as they could. Random rows hold 63 % or more."""
    sizes = np.bincount(groups)
    most = np.minimum(sizes, len(np.unique(labels))).sum()
    found = _numbers(groups, labels).max(initial=-1) + 1  # pairs of a row group and a class
    return bool(2 * found >= most)


def rank(group: Int64s) -> Int64s:
    """The position of each element among those of its group."""
    by_group = np.argsort(group, kind="stable")
    counts = np.bincount(group)
    rank = np.empty(len(group), np.int64)
    rank[by_group] = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank


def _numbers(first: Int64s, second: Int64s) -> Int64s:
    """Numbers the pairs from 0, in sorted order."""
    order = np.lexsort((second, first))
    changes = np.diff(first[order], prepend=-1) != 0
    changes |= np.diff(second[order], prepend=-1) != 0
    out = np.empty(len(first), np.int64)
    out[order] = np.cumsum(changes) - 1
    return out


def _codes(column: pa.ChunkedArray) -> Int64s:
    return np.asarray(_flat(column).dictionary_encode().indices).astype(np.int64)


def _flat(column: pa.ChunkedArray) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
