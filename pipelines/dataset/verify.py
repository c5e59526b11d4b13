"""Verifies a data set against its dataset.json: the hash of each file and sample, and the manifest against shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from imgtool.pipelines import codec
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.shards.beton import BetonReader
from imgtool.pipelines.shards.webdataset import WebDatasetReader
from imgtool.pipelines.storage.hashes import file_xxh3
from imgtool.pipelines.threads import available_cpus
from imgtool.wordnet.errors import DatasetError, ImageError

REPAIR = "delete it and run the same imgtool prepare again"


class Fault(NamedTuple):
    """``location``: the file, and the sample if only one is affected. ``problem``: what is wrong, and what to do."""

    location: str
    problem: str


@dataclass
class Verification:
    """The faults found, and how many samples, shards and bytes were checked."""

    faults: list[Fault] = field(default_factory=list)
    samples: int = 0
    shards: int = 0
    bytes: int = 0


def verify(
    data: str | Path,
    *,
    deep: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda samples, faults: None,
) -> Verification:
    """Checks a prepared data set against its dataset.json. Continues after a fault, so that all faults are reported.

    Hashes every file and every sample and compares the manifest with the shards; ``deep`` decodes every sample too.
    ``workers`` is the number of threads (default: this machine's cores). ``progress(samples, faults)`` is called after
    each shard with its counts. Raises DatasetError if there is no data set, or it is incomplete.
    """
    dataset = Dataset(data)
    found = Verification()
    with ThreadPoolExecutor(workers or available_cpus()) as pool:
        for split in dataset.splits:
            found.faults += _unnamed_files(dataset, split)
            try:
                rows = dataset.manifest(split)
            except DatasetError as error:
                found.faults.append(Fault(f"{split}.parquet", str(error)))
                continue
            found.faults += _manifest(dataset, split, rows)
            stored = rows.filter(pc.is_valid(rows["position"]))
            jobs = [
                pool.submit(
                    _shard, dataset, split, entry, stored.filter(pc.equal(stored["shard"], entry["index"])), deep
                )
                for entry in dataset.info["splits"][split]["shards"]
            ]
            for entry, job in zip(dataset.info["splits"][split]["shards"], jobs, strict=True):
                faults = job.result()
                found.faults += faults
                found.samples += entry["samples"]
                found.shards += 1
                found.bytes += sum(file["bytes"] for file in entry["files"])
                progress(entry["samples"], len(faults))
    found.faults += _class_table(dataset)
    return found


def _unnamed_files(dataset: Dataset, split: str) -> Iterator[Fault]:
    """Files that dataset.json does not name. A reader that takes every file of a folder would read them."""
    named = {file["path"] for shard in dataset.info["splits"][split]["shards"] for file in shard["files"]}
    folder = dataset.path / split
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if f"{split}/{path.name}" not in named:
            yield Fault(f"{split}/{path.name}", "is not named in dataset.json; remove it")


def _manifest(dataset: Dataset, split: str, rows: pa.Table) -> Iterator[Fault]:
    location, entry = f"{split}.parquet", dataset.info["splits"][split]
    stored = rows.num_rows - rows["position"].null_count
    if (stored, rows.num_rows - stored) != (entry["samples"], entry["skipped"]):
        yield Fault(
            location,
            f"has {stored} samples and {rows.num_rows - stored} skipped ones, dataset.json says {entry['samples']} and "
            f"{entry['skipped']}; {REPAIR}",
        )
    skipped = rows.filter(pc.is_null(rows["position"]))
    wrong = skipped.filter(pc.invert(pc.starts_with(skipped["status"], "skipped:")))
    for key in wrong["key"].to_pylist():
        yield Fault(location, f"{key} has no position, but its status is not skipped; {REPAIR}")
    labels = rows.filter(pc.is_valid(rows["position"]))["class_index"]
    low, high = (pc.min(labels).as_py(), pc.max(labels).as_py()) if len(labels) else (0, 0)
    if high >= dataset.info["classes"] or low < (-1 if split == "test" else 0):
        yield Fault(location, f"has a class index outside 0..{dataset.info['classes'] - 1}; {REPAIR}")


def _shard(dataset: Dataset, split: str, entry: dict[str, Any], rows: pa.Table, deep: bool) -> list[Fault]:
    """The faults of a shard's files and samples, also against ``rows``, its part of the manifest."""
    faults = []
    for file in entry["files"]:
        path = dataset.path / file["path"]
        try:
            size = path.stat().st_size
            if size != file["bytes"]:
                faults.append(Fault(file["path"], f"has {size} bytes instead of {file['bytes']}; {REPAIR}"))
            elif file_xxh3(path) != file["xxh3"]:
                faults.append(Fault(file["path"], f"its bytes have changed since they were written (xxh3); {REPAIR}"))
            if path.suffix != ".idx":
                faults += _samples(file["path"], _reader(path), rows, deep)
        except OSError as error:
            faults.append(Fault(file["path"], f"{error.strerror}; run the same imgtool prepare again"))
        except DatasetError as error:
            faults.append(Fault(file["path"], str(error)))
    return faults


def _reader(path: Path) -> BetonReader | WebDatasetReader:
    return BetonReader(path) if path.suffix == ".beton" else WebDatasetReader(path)


def _samples(location: str, reader: BetonReader | WebDatasetReader, rows: pa.Table, deep: bool) -> Iterator[Fault]:
    rows = rows.sort_by("position")
    positions = np.asarray(rows["position"])
    if not np.array_equal(positions, np.arange(len(reader))):
        yield Fault(location, f"has {len(reader)} samples, the manifest has {len(rows)} at other positions; {REPAIR}")
        return
    wrong = _differing(reader, rows)
    hashes = rows["stored_xxh3"].to_pylist()
    unchanged = np.asarray(pc.fill_null(pc.equal(rows["stored_xxh3"], rows["source_xxh3"]), False))
    sizes = list(zip(rows["width"].to_pylist(), rows["height"].to_pylist(), strict=True))
    for position in range(len(reader)):
        problem = wrong.get(position)
        data = reader.read(position)
        if xxhash.xxh3_64_intdigest(data) != hashes[position]:
            problem = "its bytes do not match the hash in the manifest (xxh3)"
        elif deep and problem is None and not reader.raw[position]:
            problem = _decoding_problem(data, sizes[position])
            if problem and unchanged[position]:
                source = rows["source"][position].as_py()
                problem += f", and so is its source, {source}, which this version re-encodes"
        if problem:
            yield Fault(f"{location}, sample {position} ({rows['key'][position].as_py()})", f"{problem}; {REPAIR}")


def _differing(reader: BetonReader | WebDatasetReader, rows: pa.Table) -> dict[int, str]:
    """Where a shard's own columns contradict the manifest: the last contradiction by position."""
    pairs: list[tuple[str, npt.NDArray[Any], str]] = [
        ("label", reader.label, "class_index"),
        ("size in bytes", reader.size, "bytes"),
    ]
    if isinstance(reader, BetonReader):
        pairs += [("width", reader.width, "width"), ("height", reader.height, "height")]
    wrong = {}
    for name, column, other in pairs:
        stated = np.asarray(rows[other])
        for position in np.flatnonzero(column.astype(np.int64) != stated).tolist():
            wrong[position] = f"its {name} is {column[position]}, the manifest says {stated[position]}"
    return wrong


def _decoding_problem(data: bytes, size: tuple[int, int]) -> str | None:
    try:
        found = codec.check(data)
    except ImageError as error:
        return str(error)
    return None if found == size else f"decodes to {found[0]} x {found[1]} pixels instead of {size[0]} x {size[1]}"


def _class_table(dataset: Dataset) -> Iterator[Fault]:
    try:
        table = dataset.class_table
    except DatasetError as error:
        yield Fault("labels.parquet", str(error))
        return
    if table["class_index"].to_pylist() != list(range(dataset.info["classes"])):
        yield Fault("labels.parquet", f"does not have the {dataset.info['classes']} classes in order; {REPAIR}")
        return
    for split in ("train", "val"):
        if split not in dataset.splits:
            continue
        try:
            rows = dataset.manifest(split)
        except DatasetError:
            continue  # reported above
        stored = np.asarray(rows.filter(pc.is_valid(rows["position"]))["class_index"])
        counts = np.bincount(stored[stored >= 0], minlength=len(table))
        stated = np.asarray(table[f"{split}_count"])
        for index in np.flatnonzero(counts[: len(stated)] != stated).tolist():
            yield Fault(
                "labels.parquet",
                f"has {stated[index]} {split} samples of {table['wnid'][index].as_py()}, but the manifest has "
                f"{counts[index]}; {REPAIR}",
            )
