"""The plan of a prepare: which records go into which shard, and in which order. A function of source and settings."""

from __future__ import annotations

import collections
import contextlib
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
from imgtool.pipelines.prepare import runs
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.prepare.shard_task import Shard, ShardTask
from imgtool.pipelines.records import Record, from_table, to_table
from imgtool.pipelines.sources import Source
from imgtool.wordnet.errors import ImageError, InputError, SourceError, TruncatedSourceError

PROBED, PROBED_RUNS = 64, 16
"""Images per split that are recoded while planning, to estimate how many samples fill a shard."""
MIN_SHARDS, MIN_SAMPLES, MIN_BYTES = 8, 1000, 5_000_000
"""A small split is cut into up to 8 shards of at least 1,000 samples and 5 MB, before or after recoding, so that
several workers have work."""
HOLDOUT, VAL = "minival", "val"


@dataclass
class Probe:
    """Means per image over the recoded images of a split: bytes before and after, and seconds on one core."""

    bytes_in: float
    bytes_out: float
    seconds: float


@dataclass
class Split:
    """A split's samples and how they are cut into shards.

    ``records`` and ``labels`` (class indices) are in the source's order. ``order`` (int64 [samples]) selects samples
    from them, in stored order. Shard i has the samples from ``bounds[i]`` to before ``bounds[i + 1]``.
    """

    records: pa.Table
    labels: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    bounds: list[int] = field(default_factory=list)
    probe: Probe = field(default_factory=lambda: Probe(1.0, 1.0, 0.0))

    def __len__(self) -> int:
        return len(self.order)

    @property
    def bytes_in(self) -> float:
        """The source bytes of all samples; the mean of the probed images stands in for sizes that are not known."""
        sizes = np.asarray(self.records["size"])[self.order]
        return float(np.where(sizes > 0, sizes, self.probe.bytes_in).sum())


@dataclass
class Plan:
    """Everything a prepare will make.

    ``truncated``: the messages about archives of the source that ended early. ``unselected``: the number of images by
    split whose class is not selected.
    """

    source: Source
    selection: Selection
    settings: Settings
    splits: dict[str, Split] = field(default_factory=dict)
    truncated: list[str] = field(default_factory=list)
    unselected: collections.Counter[str] = field(default_factory=collections.Counter)
    fingerprint: str = ""

    @property
    def samples(self) -> int:
        """The samples of all splits."""
        return sum(map(len, self.splits.values()))

    def notes(self) -> list[str]:
        """Returns what a user should know about the source: what is passed over or left out, one line each."""
        out = list(getattr(self.source, "notes", ()))
        if self.unselected:
            by_split = ", ".join(f"{count:,} {split}" for split, count in self.unselected.items())
            option = "--labelmap" if self.settings.label_map else "--classes"
            out.append(f"{self.unselected.total():,} images of other classes are left out by {option}: {by_split}")
        absent = [name for name in self.source.splits if name not in self.splits]
        if absent:
            out.append(f"no images in {', '.join(absent)}: the data set does not have this split")
        return out

    def shards(self) -> Iterator[Shard]:
        """Yields all shards, split by split."""
        for name, split in self.splits.items():
            for i, (begin, end) in enumerate(itertools.pairwise(split.bounds)):
                yield Shard(name, i, begin, end)

    def task(self, shard: Shard, out: str) -> ShardTask:
        """Makes the task of a shard. It holds the shard's records in memory: make it only when it is about to run."""
        split = self.splits[shard.split]
        chosen = split.order[shard.begin : shard.end]
        records = split.records.take(chosen)
        read = runs.in_file_order(records, chosen)
        order = np.empty(len(read), np.int64)
        order[read] = np.arange(len(read))  # of each sample in stored order, the place among those that are read
        # the labels are final: do not send what they were made from with every task
        settings = Settings(**(vars(self.settings) | {"label_map": None, "real": None}))
        labels = split.labels[chosen[read]].tolist()
        return ShardTask(out, self.source.root, shard, records.take(read), labels, order.tolist(), settings)


def make_plan(source: Source, settings: Settings) -> Plan:
    """Lists the source's records, shuffles them, and cuts them into shards.

    Raises SourceError if the source has no images, InputError if the settings select classes or samples that it lacks.
    """
    plan = Plan(source, select(source.wnids, settings.classes, settings.label_map), settings)
    digest = xxhash.xxh3_64(repr((source.layout, source.wnids, settings.to_dict())).encode())
    for number, name in enumerate(source.splits):
        records = to_table(_selected(plan, name, digest)).combine_chunks()
        if not records.num_rows:
            continue
        labels = _labels(records, plan.selection)
        drawn = rng.permutation((settings.seed, number), records.num_rows)
        plan.splits[name] = Split(records, labels, drawn)
        if name == "train" and (settings.holdout or settings.val_fraction):
            option, held_name, held = _held_out(settings, labels[drawn])
            if held_name in source.splits:
                raise InputError(f"{option} makes the split {held_name} from train, but the source has it already")
            plan.splits[name] = Split(records, labels, drawn[~held])
            plan.splits[held_name] = Split(records, labels, drawn[held])
    if not plan.splits:
        nothing = "the selected classes have no images" if plan.unselected else "the source holds no images"
        raise SourceError("; ".join(plan.truncated) or f"{source.root}: {nothing}")
    if (settings.holdout or settings.val_fraction) and "train" not in plan.splits:
        option = "--split-holdout" if settings.holdout else "--val-fraction"
        raise InputError(f"{option} takes samples from train, but the source has no train split")
    for number, split in enumerate(plan.splits.values()):
        _arrange(source, split, settings, (settings.seed, number))
    plan.fingerprint = digest.hexdigest()
    return plan


def _selected(plan: Plan, split: str, digest: xxhash.xxh3_64) -> Iterator[Record]:
    """Yields the records of the kept classes with all their wnids. Adds every record of the source to the digest."""
    real, index_of = plan.settings.real or {}, plan.selection.index_of
    try:
        for record in plan.source.records(split):
            digest.update(repr(record).encode("utf-8", "surrogateescape"))
            if more := real.get(record.key):
                record = record._replace(wnids=(*record.wnids, *(w for w in more if w not in record.wnids)))
            if record.wnids[0] in index_of if record.wnids else not plan.settings.classes:
                yield record
            else:
                plan.unselected[split] += 1
    except TruncatedSourceError as error:
        plan.truncated.append(str(error))


def _labels(records: pa.Table, selection: Selection) -> npt.NDArray[np.int64]:
    """The class index of each record's first wnid, int64 [records], -1 for a record without wnid."""
    values = records["wnids"].combine_chunks()
    values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
    begins = np.asarray(values.offsets)
    index = np.array([selection.index_of.get(wnid, UNLABELLED) for wnid in values.values.to_pylist()] or [0])
    return np.where(begins[1:] > begins[:-1], index[np.minimum(begins[:-1], len(index) - 1)], UNLABELLED)


def _held_out(settings: Settings, labels: npt.NDArray[np.int64]) -> tuple[str, str, npt.NDArray[np.bool_]]:
    """Returns the option that takes samples out of train, the split that they become, and which they are."""
    if settings.holdout:
        return "--split-holdout", HOLDOUT, _holdout(labels, settings.holdout)
    return "--val-fraction", VAL, _fraction(labels, settings.val_fraction)


def _fraction(labels: npt.NDArray[np.int64], fraction: float) -> npt.NDArray[np.bool_]:
    """Chooses this fraction of each class, rounded, bool [samples]; at least one sample, but never the last of train.

    Takes the first samples of a class in the given order.
    """
    _, index, of_class = np.unique(labels, return_inverse=True, return_counts=True)
    quota = np.minimum(np.maximum(np.floor(of_class * fraction + 0.5).astype(np.int64), 1), of_class - 1)
    if not quota.any():
        raise InputError(f"--val-fraction {fraction:g}: every class of train has only one sample")
    held: npt.NDArray[np.bool_] = runs.rank(index) < quota[index]
    return held


def _holdout(labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.bool_]:
    """Chooses ``count`` samples to hold out, bool [samples]: from each class in proportion to its number of samples.

    Takes the first samples of a class in the given order. Fractions are rounded by largest remainder; of equal
    remainders, the lower class index gets the sample.
    """
    if count >= len(labels):
        raise InputError(f"--split-holdout {count}: train has only {len(labels)} samples")
    _, index, of_class = np.unique(labels, return_inverse=True, return_counts=True)
    share = of_class * count / len(labels)
    quota = np.floor(share).astype(np.int64)
    quota[np.argsort(quota - share, kind="stable")[: count - quota.sum()]] += 1
    held: npt.NDArray[np.bool_] = runs.rank(index) < quota[index]
    return held


def _arrange(source: Source, split: Split, settings: Settings, key: tuple[int, int]) -> None:
    """Takes the samples of a split out of its randomly ordered records, cuts them into shards and orders them."""
    chosen = np.sort(split.order[: settings.limit or None])
    probed = runs.order(runs.runs_of(split.records, chosen, split.labels, PROBED // PROBED_RUNS), (*key, 0))
    split.probe = _probe(source, split.records.take(np.sort(chosen[probed[:PROBED]])), settings)
    split.bounds = _bounds(len(chosen), split.probe, settings)
    arrange(split, chosen, key)


def arrange(split: Split, chosen: npt.NDArray[np.int64], key: tuple[int, int]) -> None:
    """Orders the ``chosen`` records of a split, which are sorted, into the shards of its ``bounds``."""
    per_run = max(1, split.bounds[1] // runs.RUNS_PER_SHARD)
    order = runs.order(runs.runs_of(split.records, chosen, split.labels, per_run), (*key, 1))
    split.order = chosen[runs.shuffled(order, split.bounds, (*key, 2))]


def _probe(source: Source, records: pa.Table, settings: Settings) -> Probe:
    """Recodes a few images of a split; damaged ones are left out."""
    sizes_in, sizes_out = [], []
    started = time.perf_counter()
    with LocatorReader(source.root) as reader:
        for data in reader.read_many(record.locator for record in from_table(records)):
            with contextlib.suppress(ImageError):
                if isinstance(data, bytes):
                    sizes_in.append(len(data))
                    sizes_out.append(len(settings.recode(data).data))
    seconds = (time.perf_counter() - started) / max(len(sizes_in), 1)
    return Probe(float(np.mean(sizes_in or [1])), float(np.mean(sizes_out or [1])), seconds)


def _bounds(samples: int, probe: Probe, settings: Settings) -> list[int]:
    """Where the shards of a split begin and end: equal numbers of samples, of about the requested size."""
    by_size = round(samples * probe.bytes_out / (settings.shard_size * 1e6))
    by_work = int(samples * max(probe.bytes_in, probe.bytes_out) // MIN_BYTES)
    shards = max(1, by_size, min(MIN_SHARDS, samples // MIN_SAMPLES, by_work))
    return [samples * i // shards for i in range(shards + 1)]


def describe(plan: Plan, src: str | Path) -> str:
    """Describes the source in one line: layout, number of classes, images per split."""
    splits = ", ".join(f"{len(split):,} {name}" for name, split in plan.splits.items())
    return f"{src}: {plan.source.layout}, {len(plan.selection.wnids)} classes, {splits} images"
