"""How often prepare reads a slow source: in runs, and beside it one read per image in random order.

The reads are those of `LocatorReader` on real files, counted below it. The time is computed: on a disk from seeks and
bytes, on a store from requests.
"""

from __future__ import annotations

import io
import itertools
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.prepare.plan import Plan, arrange, make_plan
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.records import Locator, from_table
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.storage.folders import LocalFolder, RandomAccessFile

SEEK_SECONDS, DISK_BYTES_PER_SECOND = 0.008, 150e6
REQUEST_SECONDS = 0.03
ROWS_PER_GROUP = 100
SAMPLED = 200
"""Images that are read in random order: their mean is enough."""
DATA_SETS = {"ImageNet-1k": 1_281_167, "ImageNet-21k": 14_197_122}
"""Training images, to multiply the cost per image by."""


@dataclass
class Reads:
    """Counts of reads, of those that begin elsewhere than the one before ended, and of bytes."""

    reads: int = 0
    seeks: int = 0
    bytes: int = 0
    end: tuple[str, int] | None = None


class CountedFile:
    """A file that counts its reads."""

    def __init__(self, file: RandomAccessFile, name: str, counts: Reads) -> None:
        self.size, self._file, self._name, self._counts = file.size, file, name, counts

    def read(self, offset: int, size: int) -> bytes:
        data = self._file.read(offset, size)
        self._counts.reads += 1
        self._counts.seeks += self._counts.end != (self._name, offset)
        self._counts.bytes += len(data)
        self._counts.end = (self._name, offset + len(data))
        return data

    def close(self) -> None:
        self._file.close()


class CountedFolder(LocalFolder):
    """A folder that counts the reads of its files."""

    def __init__(self, path: str, counts: Reads) -> None:
        super().__init__(path)
        self._counts = counts

    def open(self, name: str) -> RandomAccessFile:
        return CountedFile(super().open(name), name, self._counts)


def measure(classes: dict[str, list[tuple[str, bytes]]], repeat: int) -> dict[str, Any]:
    """Counts the reads of the images in a tar of class tars and in parquet, each image ``repeat`` times.

    The images are shuffled among the classes, so that neighbours differ in size as they do in a real data set.
    """
    out = []
    classes = _shuffled(classes, repeat)
    with tempfile.TemporaryDirectory() as temporary:
        for name, write in (("tar", write_tar), ("parquet", write_parquet)):
            folder = Path(temporary) / name
            folder.mkdir()
            write(classes, 1, folder)
            plan = make_plan(open_source(folder), Settings())
            split = plan.splits["train"]
            # Shards of the size that those of a large data set have, which a small one is too small for.
            per_shard = round(plan.settings.shard_size * 1e6 / split.probe.bytes_out)
            split.bounds = [*range(0, len(split), per_shard), len(split)]
            arrange(split, np.arange(len(split)), (0, 0))
            locators = [record.locator for record in from_table(split.records)]
            chosen = np.random.default_rng(0).permutation(len(locators))[:SAMPLED]
            single = [[locators[i]] for i in chosen]
            out.append({"source": name, "order": "image by image", **_cost(plan, single, at_once=_pending(single))})
            runs = list(_runs(plan))
            out.append({"source": name, "order": "in runs", **_cost(plan, runs, at_once=_pending(runs))})
    return {"images": len(locators), "reading": out}


def _shuffled(classes: dict[str, list[tuple[str, bytes]]], repeat: int) -> dict[str, list[tuple[str, bytes]]]:
    images = [(f"{key}_{i}", data) for of_class in classes.values() for key, data in of_class for i in range(repeat)]
    parts = np.array_split(np.random.default_rng(1).permutation(len(images)), len(classes))
    return {wnid: [images[i] for i in part] for wnid, part in zip(classes, parts, strict=True)}


def _runs(plan: Plan) -> Iterable[list[Locator]]:
    """The runs of every shard, as the shard's task reads them."""
    for shard in plan.shards():
        task = plan.task(shard, "")
        of_shard = (record.locator for record in from_table(task.records))
        yield from (list(run) for _, run in itertools.groupby(of_shard, lambda one: one.run))


def _pending(runs: Sequence[Sequence[Locator]]) -> int:
    """How many runs are requested from a store at the same time, as `LocatorReader` limits them."""
    mean = np.mean([sum(max(one.size, 1 << 17) for one in run) for run in runs])
    return max(1, min(LocatorReader.PREFETCHED, int(LocatorReader.PREFETCHED_BYTES // mean)))


def _cost(plan: Plan, runs: Sequence[Sequence[Locator]], at_once: int) -> dict[str, Any]:
    """Reads the runs; returns the counts per image, and the seconds per image that they take on disk and store."""
    counts, images = Reads(), sum(map(len, runs))
    with LocatorReader(plan.source.root, CountedFolder(plan.source.root, counts)) as reader:
        for run in runs:
            counts.end = None  # between the runs of a large data set are other images
            for data in reader.read_many(run):
                assert isinstance(data, bytes)
    return {
        "reads": counts.reads / images,
        "seeks": counts.seeks / images,
        "bytes": counts.bytes / images,
        "at_once": at_once,
        "disk_seconds": (counts.seeks * SEEK_SECONDS + counts.bytes / DISK_BYTES_PER_SECOND) / images,
        "store_seconds": counts.reads * REQUEST_SECONDS / at_once / images,
    }


def write_tar(classes: dict[str, list[tuple[str, bytes]]], repeat: int, folder: Path) -> None:
    """Writes the images into a tar of class tars, as ILSVRC2012 has them."""
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
        for wnid, images in classes.items():
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for i in range(repeat):
                    for key, data in images:
                        add(archive, f"{key}_{i}.JPEG", data)
            add(outer, f"{wnid}.tar", inner.getvalue())


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Adds a file to a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def write_parquet(classes: dict[str, list[tuple[str, bytes]]], repeat: int, folder: Path) -> None:
    """Writes the images into a parquet file in random order, as Hugging Face has ImageNet."""
    rows = [
        (label, f"{key}_{i}.JPEG", data)
        for label, images in enumerate(classes.values())
        for key, data in images
        for i in range(repeat)
    ]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())])
    order = np.random.default_rng(0).permutation(len(rows))
    with pq.ParquetWriter(folder / "train-00000-of-00001.parquet", schema) as writer:
        for part in np.array_split(order, -(-len(rows) // ROWS_PER_GROUP)):
            group = [{"image": {"bytes": rows[i][2], "path": rows[i][1]}, "label": rows[i][0]} for i in part]
            writer.write_table(pa.Table.from_pylist(group, schema))


def show(result: dict[str, Any]) -> None:
    """Prints the counts per image, and the hours for whole data sets."""
    for row in result["reading"]:
        hours = "; ".join(
            f"{name}: {row['disk_seconds'] * count / 3600:6.2f} h from disk, "
            f"{row['store_seconds'] * count / 3600:5.2f} h from store"
            for name, count in DATA_SETS.items()
        )
        click.echo(
            f"{row['source']:8} {row['order']:15} per image {row['reads']:6.3f} reads {row['seeks']:6.3f} seeks "
            f"{row['bytes'] / 1e3:8,.1f} kB  {hours}"
        )
