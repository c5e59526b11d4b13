"""Proof that what is on disk is what dataset.json says: each file's hash, each sample's, manifest against shards."""

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
    """``where``: the file, and sample if one is meant; ``what`` is wrong, and what to do."""

    where: str
    what: str


@dataclass
class Proof:
    """What was found wrong, and how much was looked at."""

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
) -> Proof:
    """Checks a prepared data set against its dataset.json and goes on after a fault, so that all are named.

    Hashes every file and every sample and compares the manifest with the shards; ``deep`` decodes every sample too.
    ``workers`` threads (default: this machine's cores). ``progress(samples, faults)`` is called as it goes. Raises
    DatasetError if there is no data set, or an incomplete one.
    """
    dataset = Dataset(data)
    proof = Proof()
    with ThreadPoolExecutor(workers or available_cpus()) as pool:
        for split in dataset.splits:
            proof.faults += _strays(dataset, split)
            try:
                rows = dataset.manifest(split)
            except DatasetError as error:
                proof.faults.append(Fault(f"{split}.parquet", str(error)))
                continue
            proof.faults += _manifest(dataset, split, rows)
            stored = rows.filter(pc.is_valid(rows["position"]))
            jobs = [
                pool.submit(
                    _shard, dataset, split, entry, stored.filter(pc.equal(stored["shard"], entry["index"])), deep
                )
                for entry in dataset.info["splits"][split]["shards"]
            ]
            for entry, job in zip(dataset.info["splits"][split]["shards"], jobs, strict=True):
                found = job.result()
                proof.faults += found
                proof.samples += entry["samples"]
                proof.shards += 1
                proof.bytes += sum(file["bytes"] for file in entry["files"])
                progress(entry["samples"], len(found))
    proof.faults += _labels(dataset)
    return proof


def _strays(dataset: Dataset, split: str) -> Iterator[Fault]:
    """Files that no one named: a reader that takes all of a folder would read them."""
    named = {file["path"] for shard in dataset.info["splits"][split]["shards"] for file in shard["files"]}
    folder = dataset.path / split
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if f"{split}/{path.name}" not in named:
            yield Fault(f"{split}/{path.name}", "is not named in dataset.json; remove it")


def _manifest(dataset: Dataset, split: str, rows: pa.Table) -> Iterator[Fault]:
    where, entry = f"{split}.parquet", dataset.info["splits"][split]
    stored = rows.num_rows - rows["position"].null_count
    if (stored, rows.num_rows - stored) != (entry["samples"], entry["skipped"]):
        yield Fault(
            where,
            f"has {stored} samples and {rows.num_rows - stored} skipped ones, dataset.json says {entry['samples']} and "
            f"{entry['skipped']}; prepare again",
        )
    skipped = rows.filter(pc.is_null(rows["position"]))
    wrong = skipped.filter(pc.invert(pc.starts_with(skipped["status"], "skipped:")))
    for key in wrong["key"].to_pylist():
        yield Fault(where, f"{key} has no position and is not said to be skipped; prepare again")
    labels = rows["class_index"].drop_null()
    low, high = (pc.min(labels).as_py(), pc.max(labels).as_py()) if len(labels) else (0, 0)
    if high >= dataset.info["classes"] or low < (-1 if split == "test" else 0):
        yield Fault(where, f"has a class index outside 0..{dataset.info['classes'] - 1}; prepare again")


def _shard(dataset: Dataset, split: str, entry: dict[str, Any], rows: pa.Table, deep: bool) -> list[Fault]:
    """The faults of a shard's files, of ``rows`` (its part of the manifest) against them, and of its samples."""
    faults = []
    for file in entry["files"]:
        path = dataset.path / file["path"]
        try:
            size = path.stat().st_size
            if size != file["bytes"]:
                faults.append(Fault(file["path"], f"has {size} bytes instead of {file['bytes']}; {REPAIR}"))
            elif file_xxh3(path) != file["xxh3"]:
                faults.append(Fault(file["path"], f"its bytes are not those that were written (xxh3); {REPAIR}"))
            if path.suffix != ".idx":
                faults += _samples(file["path"], _reader(path), rows, deep)
        except OSError as error:
            faults.append(Fault(file["path"], f"{error.strerror}; run the same imgtool prepare again"))
        except DatasetError as error:
            faults.append(Fault(file["path"], str(error)))
    return faults


def _reader(path: Path) -> BetonReader | WebDatasetReader:
    return BetonReader(path) if path.suffix == ".beton" else WebDatasetReader(path)


def _samples(where: str, reader: BetonReader | WebDatasetReader, rows: pa.Table, deep: bool) -> Iterator[Fault]:
    rows = rows.sort_by("position")
    positions = np.asarray(rows["position"])
    if not np.array_equal(positions, np.arange(len(reader))):
        yield Fault(
            where, f"holds {len(reader)} samples, the manifest tells of {len(rows)} at other positions; {REPAIR}"
        )
        return
    wrong = _differing(reader, rows)
    hashes = rows["stored_xxh3"].to_pylist()
    sizes = list(zip(rows["width"].to_pylist(), rows["height"].to_pylist(), strict=True))
    for position in range(len(reader)):
        what = wrong.get(position)
        data = reader.read(position)
        if xxhash.xxh3_64_intdigest(data) != hashes[position]:
            what = "its bytes are not those in the manifest (xxh3)"
        elif deep and what is None and not reader.raw[position]:
            what = _decodes(data, sizes[position])
        if what:
            yield Fault(f"{where}, sample {position} ({rows['key'][position].as_py()})", f"{what}; {REPAIR}")


def _differing(reader: BetonReader | WebDatasetReader, rows: pa.Table) -> dict[int, str]:
    """What a shard's own columns say otherwise than the manifest, by position."""
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


def _decodes(data: bytes, size: tuple[int, int]) -> str | None:
    try:
        found = codec.check(data)
    except ImageError as error:
        return str(error)
    return None if found == size else f"decodes to {found[0]} x {found[1]} pixels instead of {size[0]} x {size[1]}"


def _labels(dataset: Dataset) -> Iterator[Fault]:
    try:
        labels = dataset.labels
    except DatasetError as error:
        yield Fault("labels.parquet", str(error))
        return
    if labels["class_index"].to_pylist() != list(range(dataset.info["classes"])):
        yield Fault("labels.parquet", f"does not have the {dataset.info['classes']} classes in order; prepare again")
        return
    for split in ("train", "val"):
        if split not in dataset.splits:
            continue
        try:
            rows = dataset.manifest(split)
        except DatasetError:
            continue  # named above
        stored = np.asarray(rows.filter(pc.is_valid(rows["position"]))["class_index"])
        counts = np.bincount(stored[stored >= 0], minlength=len(labels))
        stated = np.asarray(labels[f"{split}_count"])
        for index in np.flatnonzero(counts[: len(stated)] != stated).tolist():
            yield Fault(
                "labels.parquet",
                f"says {stated[index]} {split} samples of {labels['wnid'][index].as_py()}, the manifest has "
                f"{counts[index]}; prepare again",
            )
