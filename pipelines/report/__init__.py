"""report.html of a prepared data set: its classes, sizes, samples, and what was skipped, on one self-contained page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from imgtool.pipelines import codec
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.report.rendering import data_uri, render
from imgtool.pipelines.report.tree import ClassNode, class_tree, superclasses
from imgtool.pipelines.shards.beton import BetonReader
from imgtool.pipelines.shards.webdataset import WebDatasetReader
from imgtool.pipelines.storage.atomic import write_text

NAME = "report.html"
MAX_LISTED = 1000  # skipped or repaired images named on the page; the manifests have them all
EXTREMES = 8  # classes with the fewest and with the most samples
SUPERCLASSES, THUMBNAILS, THUMBNAIL_SIDE = 14, 6, 96  # groups of sample images, images per group, pixels
BINS = 30
COLUMNS = ["key", "source", "status", "class_index", "shard", "position", "source_width", "source_height"]
COLUMNS += ["source_bytes", "width", "height", "bytes", "source_xxh3", "wnids"]
SETTINGS = {  # keys of dataset.json's settings → labels on the page
    "max_side": "Longer side, at most (pixels)",
    "short_side": "Shorter side, at most (pixels)",
    "store": "Stored as",
    "quality": "JPEG quality",
    "subsampling": "Chroma subsampling",
    "exif": "EXIF orientation",
    "skip_smaller": "Skipped if the shorter side is below (pixels)",
    "format": "Shard format",
    "shard_size": "Shard size (MB)",
    "classes": "Classes selected by",
    "real": "ReaL labels (digest)",
    "limit": "Samples per split, at most",
    "holdout": "Samples of train held out as minival",
    "val_fraction": "Fraction of each class of train held out as val",
}


def write_report(data: str | Path, path: Path | None = None) -> Path:
    """Writes the report of a data set (default: report.html in its folder) and returns its path.

    The page is a function of the data set alone: it holds no time and no path of this machine. Raises DatasetError.
    """
    dataset = Dataset(data)
    path = path or dataset.path / NAME
    manifests = {split: dataset.manifest(split).select(COLUMNS) for split in dataset.splits}
    tree = class_tree(dataset.class_table, _class_counts(dataset, manifests))
    by_count = sorted(tree.leaves(), key=lambda node: (node.count, node.name))
    splits = {split: _summary(dataset, split, manifest) for split, manifest in manifests.items()}
    page = render(
        Path(__file__).with_name("dataset.html.j2"),
        name=dataset.info["source"]["name"],
        info=dataset.info,
        formats=dataset.formats,
        splits=splits,
        total={name: sum(summary[name] for summary in splits.values()) for name in next(iter(splits.values()), ())},
        settings=_settings(dataset.info["settings"]),
        notes=list(_notes(manifests)),
        tree=tree,
        fewest=by_count[:EXTREMES],
        most=by_count[: -EXTREMES - 1 : -1],
        histograms=list(_histograms(manifests)),
        mosaic=_mosaic(dataset, tree),
        troubles=[_trouble(kind, manifests) for kind in ("skipped", "repaired")],
    )
    write_text(path, page)
    return path


def _class_counts(dataset: Dataset, manifests: dict[str, pa.Table]) -> dict[str, list[int]]:
    """Stored samples per split and class index."""
    counts = {}
    for split, rows in manifests.items():
        stored = np.asarray(rows.filter(pc.is_valid(rows["position"]))["class_index"])
        counts[split] = np.bincount(stored[stored >= 0], minlength=dataset.info["classes"]).tolist()
    return counts


def _summary(dataset: Dataset, split: str, manifest: pa.Table) -> dict[str, int]:
    entry = dataset.info["splits"][split]
    return {
        "samples": entry["samples"],
        "skipped": entry["skipped"],
        "repaired": pc.sum(pc.starts_with(manifest["status"], "repaired")).as_py() or 0,
        "shards": len(entry["shards"]),
        "source_bytes": pc.sum(manifest["source_bytes"]).as_py() or 0,
        "bytes": pc.sum(manifest["bytes"]).as_py() or 0,
    }


def _settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings in use, by their label on the page."""
    used = {label: settings.get(key) for key, label in SETTINGS.items()}
    out = {label: value for label, value in used.items() if value not in (None, "", 0)}
    out["Seed"] = str(settings["seed"])
    if settings.get("labelmap"):
        out["Label map"] = f"{len(settings['labelmap']['targets'])} targets"
    return out


def _notes(manifests: dict[str, pa.Table]) -> Iterator[dict[str, Any]]:
    """Images of several classes, and images that occur more than once: their source bytes have the same hash."""
    hashes = {split: np.asarray(rows["source_xxh3"].drop_null()) for split, rows in manifests.items()}
    for split, rows in manifests.items():
        shared = int(np.isin(hashes[split], hashes["train"]).sum()) if "train" in hashes and split != "train" else 0
        for count, text in (
            (pc.sum(pc.greater(pc.list_value_length(rows["wnids"]), 1)).as_py(), "several classes"),
            (len(hashes[split]) - len(np.unique(hashes[split])), "the same bytes as another image of the split"),
            (shared, "the same bytes as an image of train"),
        ):
            if count:
                yield {"count": count, "split": split, "text": text}


def _histograms(manifests: dict[str, pa.Table]) -> Iterator[dict[str, Any]]:
    rows = pa.concat_tables(list(manifests.values()))
    rows = rows.filter(pc.is_valid(rows["position"]))
    if not rows.num_rows:
        return
    source_width, source_height, width, height, size = (
        np.asarray(rows[name]).astype(np.float64)
        for name in ("source_width", "source_height", "width", "height", "bytes")
    )
    yield _histogram("Longer side of the source images, in pixels", np.maximum(source_width, source_height), " pixels")
    yield _histogram("Longer side of the stored images, in pixels", np.maximum(width, height), " pixels")
    yield _histogram("Aspect ratio of the source images (width / height)", source_width / source_height)
    yield _histogram("Stored size of a sample, in kB", size / 1000, " kB")


def _histogram(title: str, values: npt.NDArray[np.float64], unit: str = "") -> dict[str, Any]:
    """Counts values in ``BINS`` bins over their middle 99 %; values beyond it go to the first and last bin."""
    low, high = np.quantile(values, [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    smallest, largest = values.min(), values.max()
    return {
        **{"title": title, "unit": unit, "counts": counts.tolist(), "edges": edges.tolist()},
        **{"median": float(np.median(values)), "smallest": float(smallest), "largest": float(largest)},
        "clipped": bool(smallest < edges[0] or largest > edges[-1]),
    }


def _mosaic(dataset: Dataset, tree: ClassNode) -> dict[str, Any] | None:
    """A few samples of each superclass, from the first shard: its samples are shuffled, so it has classes of all kinds.
    None if no sample is stored."""
    split = next((s for s in dataset.splits if dataset.info["splits"][s]["shards"]), None)
    if split is None:
        return None
    reader: BetonReader | WebDatasetReader
    if "beton" in dataset.formats:
        reader = BetonReader(dataset.shards(split)[0])
    else:
        reader = WebDatasetReader(dataset.shards(split, ".tar")[0])
    names = dataset.class_table["name"].to_pylist()
    groups = []
    for node in superclasses(tree, SUPERCLASSES):
        positions = np.flatnonzero(np.isin(reader.label, node.class_indices()))[:THUMBNAILS]
        thumbnails = [
            {"uri": _thumbnail(reader.pixels(position)), "name": names[reader.label[position]]}
            for position in positions.tolist()
        ]
        groups.append({"name": node.name, "thumbnails": thumbnails})
    return {"split": split, "side": THUMBNAIL_SIDE, "groups": groups}


def _thumbnail(pixels: codec.Pixels) -> str:
    return data_uri(codec.encode(codec.center_crop(pixels, THUMBNAIL_SIDE), quality=70), "jpeg")


def _trouble(kind: str, manifests: dict[str, pa.Table]) -> dict[str, Any]:
    """How many images were skipped or repaired (``kind``), and split, key, cause and source of the first ones."""
    rows: list[list[str]] = []
    total = 0
    for split, manifest in manifests.items():
        found = manifest.filter(pc.starts_with(manifest["status"], kind))
        total += found.num_rows
        for row in found.slice(0, MAX_LISTED - len(rows)).to_pylist():
            rows.append([split, row["key"], row["status"].partition(":")[2], row["source"]])
    return {"kind": kind, "total": total, "rows": rows}
