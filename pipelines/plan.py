"""The plan of a prepare: which records go into which shard, in which order. A pure function of source and settings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from imgtool.pipelines.records import LocatorReader, Record
from imgtool.pipelines.selection import Selection, select
from imgtool.pipelines.shard_task import Settings, ShardTask
from imgtool.pipelines.sources import Source
from imgtool.wordnet.errors import ImageError, SourceError, TruncatedSourceError

PROBED = 64
"""Pictures recoded while planning, to learn how many samples make a shard of the wanted size."""
MIN_SHARDS, MIN_SAMPLES = 8, 1000
"""A small split is cut into up to 8 shards of at least 1,000 samples, so that several workers find work."""


@dataclass
class Plan:
    """``splits[name]``: the split's records in stored order; ``boundaries[name]``: where its shards begin and end."""

    source: Source
    selection: Selection
    settings: Settings
    splits: dict[str, list[Record]]
    boundaries: dict[str, list[int]]
    truncated: list[str]
    fingerprint: str

    @property
    def samples(self) -> int:
        return sum(map(len, self.splits.values()))

    def tasks(self, out: Path) -> Iterator[ShardTask]:
        """The shard tasks, in order."""
        index_of = self.selection.index_of
        for split, records in self.splits.items():
            bounds = self.boundaries[split]
            for i, (begin, end) in enumerate(itertools.pairwise(bounds)):
                part = records[begin:end]
                labels = [index_of[record.wnids[0]] for record in part]
                yield ShardTask(str(out), self.source.root, split, i, part, labels, self.settings)


def make_plan(source: Source, settings: Settings) -> Plan:
    """Lists the source's records, shuffles them, and cuts them into shards. Raises SourceError if there is none."""
    selection = select(source.wnids, settings.classes, settings.labelmap)
    plan = Plan(source, selection, settings, {}, {}, [], "")
    digest = xxhash.xxh3_64(repr((source.layout, source.wnids, settings.to_dict())).encode())
    for number, split in enumerate(source.splits):
        records = []
        try:
            for record in source.records(split):
                if record.wnids[0] in selection.index_of:
                    records.append(record)
        except TruncatedSourceError as error:
            plan.truncated.append(str(error))
        for record in records:
            digest.update(repr(record).encode("utf-8", "surrogateescape"))
        if not records:
            continue
        # Shuffled across classes once, here: a reader that shuffles only locally then still sees mixed classes.
        order = np.random.default_rng([settings.seed, number]).permutation(len(records))
        records = [records[i] for i in order]
        plan.splits[split] = records
        plan.boundaries[split] = _boundaries(len(records), _mean_bytes(source, records, settings), settings)
    if not plan.splits:
        raise SourceError("; ".join(plan.truncated) or f"{source.root}: the source holds no pictures")
    plan.fingerprint = digest.hexdigest()
    return plan


def _mean_bytes(source: Source, records: list[Record], settings: Settings) -> float:
    sizes = []
    with LocatorReader(source.root) as reader:
        for record in records[:PROBED]:
            try:
                sizes.append(len(settings.recode(reader.read(record.locator)).data))
            except ImageError:
                continue
    return sum(sizes) / len(sizes) if sizes else 1.0


def _boundaries(samples: int, mean_bytes: float, settings: Settings) -> list[int]:
    by_size = round(samples * mean_bytes / (settings.shard_size * 1e6))
    shards = max(1, by_size, min(MIN_SHARDS, samples // MIN_SAMPLES))
    return [samples * i // shards for i in range(shards + 1)]
