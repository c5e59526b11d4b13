"""The plan of a prepare: which records go into which shard, in which order. A pure function of source and settings."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from imgtool.pipelines import rng
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.dataset.manifest import UNLABELLED
from imgtool.pipelines.dataset.selection import Selection, select
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.prepare.shard_task import Shard, ShardTask
from imgtool.pipelines.records import Record, from_table, to_table
from imgtool.pipelines.sources import Source
from imgtool.wordnet.errors import ImageError, InputError, SourceError, TruncatedSourceError

PROBED = 64
"""Images of a split recoded while planning, to learn how many samples make a shard of the wanted size."""
MIN_SHARDS, MIN_SAMPLES = 8, 1000
"""A small split is cut into up to 8 shards of at least 1,000 samples, so that several workers find work."""
HOLDOUT = "minival"


@dataclass
class Probe:
    """What recoding a few of a split's images showed, an image: bytes before and after, and seconds on one core."""

    bytes_in: float
    bytes_out: float
    seconds: float


@dataclass
class Split:
    """``records`` as the source has them, [order] of which are the split's samples in stored order; ``bounds``: where
    its shards begin and end; ``bytes_in``: of all its images, as far as the source knows their sizes."""

    records: pa.Table
    labels: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    bounds: list[int] = field(default_factory=list)
    probe: Probe = field(default_factory=lambda: Probe(1.0, 1.0, 0.0))

    def __len__(self) -> int:
        return len(self.order)

    @property
    def bytes_in(self) -> float:
        sizes = np.asarray(self.records["size"])[self.order]
        return float(np.where(sizes > 0, sizes, self.probe.bytes_in).sum())


@dataclass
class Plan:
    """``splits`` in order; ``truncated``: what the source said of archives that ended early."""

    source: Source
    selection: Selection
    settings: Settings
    splits: dict[str, Split] = field(default_factory=dict)
    truncated: list[str] = field(default_factory=list)
    fingerprint: str = ""

    @property
    def samples(self) -> int:
        return sum(map(len, self.splits.values()))

    def shards(self) -> Iterator[Shard]:
        """All shards, in order."""
        for name, split in self.splits.items():
            for i, (begin, end) in enumerate(itertools.pairwise(split.bounds)):
                yield Shard(name, i, begin, end)

    def task(self, shard: Shard, out: str) -> ShardTask:
        """The task that makes a shard; it holds the shard's records, so make one when it is wanted and not before."""
        split = self.splits[shard.split]
        chosen = split.order[shard.begin : shard.end]
        # what the labels were made of stays here: it would travel with every task
        settings = Settings(**(vars(self.settings) | {"labelmap": None, "real": None}))
        labels = split.labels[chosen].tolist()
        return ShardTask(out, self.source.root, shard, split.records.take(chosen), labels, settings)


def make_plan(source: Source, settings: Settings) -> Plan:
    """Lists the source's records, shuffles them, and cuts them into shards.

    Raises SourceError if there is none, InputError if the settings ask for what is not there.
    """
    plan = Plan(source, select(source.wnids, settings.classes, settings.labelmap), settings)
    digest = xxhash.xxh3_64(repr((source.layout, source.wnids, settings.to_dict())).encode())
    for number, name in enumerate(source.splits):
        records = to_table(_selected(plan, name, digest)).combine_chunks()
        if not records.num_rows:
            continue
        # Shuffled across classes once, here: a reader that shuffles only locally then still sees mixed classes.
        order = rng.permutation((settings.seed, number), records.num_rows)
        labels = _labels(records, plan.selection)
        if name == "train" and settings.holdout:
            held = _holdout(labels[order], settings.holdout)
            plan.splits[name] = Split(records, labels, order[~held])
            plan.splits[HOLDOUT] = Split(records, labels, order[held])
        else:
            plan.splits[name] = Split(records, labels, order)
    if settings.holdout and HOLDOUT not in plan.splits:
        raise InputError("--split-holdout takes samples out of train, and the source has no train split")
    if not plan.splits:
        raise SourceError("; ".join(plan.truncated) or f"{source.root}: the source holds no images")
    for split in plan.splits.values():
        if settings.limit:
            split.order = split.order[: settings.limit]
        split.probe = _probe(source, split, settings)
        split.bounds = _bounds(len(split), split.probe.bytes_out, settings)
    plan.fingerprint = digest.hexdigest()
    return plan


def _selected(plan: Plan, split: str, digest: xxhash.xxh3_64) -> Iterator[Record]:
    """The source's records of the classes that are kept, each with all its wnids; each goes into the digest."""
    real, index_of = plan.settings.real or {}, plan.selection.index_of
    try:
        for record in plan.source.records(split):
            digest.update(repr(record).encode("utf-8", "surrogateescape"))
            if more := real.get(record.key):
                record = record._replace(wnids=(*record.wnids, *(w for w in more if w not in record.wnids)))
            if record.wnids[0] in index_of if record.wnids else not plan.settings.classes:
                yield record
    except TruncatedSourceError as error:
        plan.truncated.append(str(error))


def _labels(records: pa.Table, selection: Selection) -> npt.NDArray[np.int64]:
    """The class index of each record's first wnid, -1 for those that have none."""
    values = records["wnids"].combine_chunks()
    values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
    begins = np.asarray(values.offsets)
    index = np.array([selection.index_of.get(wnid, UNLABELLED) for wnid in values.values.to_pylist()] or [0])
    return np.where(begins[1:] > begins[:-1], index[np.minimum(begins[:-1], len(index) - 1)], UNLABELLED)


def _holdout(labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.bool_]:
    """Which of these samples are held out: ``count`` of them, of each class in proportion to its samples.

    The first ones of a class in the given order. Fractions go by largest remainder, ties to the lower class index.
    """
    if count >= len(labels):
        raise InputError(f"--split-holdout {count}: train has only {len(labels)} samples")
    _, index, of_class = np.unique(labels, return_inverse=True, return_counts=True)
    share = of_class * count / len(labels)
    quota = np.floor(share).astype(np.int64)
    quota[np.argsort(quota - share, kind="stable")[: count - quota.sum()]] += 1
    by_class = np.argsort(index, kind="stable")
    rank = np.empty(len(labels), np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(of_class) - of_class, of_class)
    held: npt.NDArray[np.bool_] = rank < quota[index]
    return held


def _probe(source: Source, split: Split, settings: Settings) -> Probe:
    sizes_in, sizes_out = [], []
    started = time.perf_counter()
    with LocatorReader(source.root) as reader:
        for record in from_table(split.records.take(split.order[:PROBED])):
            try:
                data = reader.read(record.locator)
                sizes_in.append(len(data))
                sizes_out.append(len(settings.recode(data).data))
            except ImageError:
                continue
    seconds = (time.perf_counter() - started) / max(len(sizes_in), 1)
    return Probe(float(np.mean(sizes_in or [1])), float(np.mean(sizes_out or [1])), seconds)


def _bounds(samples: int, mean_bytes: float, settings: Settings) -> list[int]:
    by_size = round(samples * mean_bytes / (settings.shard_size * 1e6))
    shards = max(1, by_size, min(MIN_SHARDS, samples // MIN_SAMPLES))
    return [samples * i // shards for i in range(shards + 1)]


def describe(plan: Plan, src: str | Path) -> str:
    """One line that says what was found."""
    splits = ", ".join(f"{len(split):,} {name}" for name, split in plan.splits.items())
    return f"{src}: {plan.source.layout}, {len(plan.selection.wnids)} classes, {splits} images"
