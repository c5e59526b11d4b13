"""report.html: what a prepared data set looks like, on one page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgtool.pipelines import codec
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.report.html import bars, details, figure, page, table, text
from imgtool.pipelines.report.tree import Node, class_tree, superclasses
from imgtool.pipelines.shards.beton import BetonReader
from imgtool.pipelines.shards.webdataset import WebDatasetReader
from imgtool.pipelines.storage.atomic import write_text

NAME = "report.html"
LISTED = 1000
"""Skipped images named on the page; the manifest has them all."""
SUPERCLASSES, SHOWN, THUMBNAIL = 14, 6, 96
COLUMNS = ["key", "source", "status", "class_index", "shard", "position", "source_width", "source_height"]
COLUMNS += ["source_bytes", "width", "height", "bytes", "source_xxh3", "wnids"]


def write_report(data: str | Path, path: Path | None = None) -> Path:
    """Writes the report of a data set (default: report.html in its folder); returns where.

    The page is a function of the data set alone: no time, no path of this machine. Raises DatasetError.
    """
    dataset = Dataset(data)
    path = path or dataset.path / NAME
    splits = {split: dataset.manifest(split).select(COLUMNS) for split in dataset.splits}
    tree = class_tree(dataset.labels, _counts(dataset, splits))
    source = dataset.info["source"]
    sections = [
        ("Classes", _classes(tree)),
        ("Sizes", "".join(_histograms(splits))),
        ("Samples", _mosaic(dataset, tree)),
        ("Skipped and repaired", _troubles(splits)),
    ]
    write_text(path, page(f"{source['name']}, prepared", _summary(dataset, splits), sections))
    return path


def _counts(dataset: Dataset, splits: dict[str, pa.Table]) -> dict[str, list[int]]:
    counts = {}
    for split, rows in splits.items():
        stored = np.asarray(rows.filter(pc.is_valid(rows["position"]))["class_index"])
        counts[split] = np.bincount(stored[stored >= 0], minlength=dataset.info["classes"]).tolist()
    return counts


def _summary(dataset: Dataset, splits: dict[str, pa.Table]) -> str:
    info, rows = dataset.info, []
    for split, manifest in splits.items():
        entry = info["splits"][split]
        bytes_in, bytes_out = (pc.sum(manifest[name]).as_py() or 0 for name in ("source_bytes", "bytes"))
        repaired = pc.sum(pc.starts_with(manifest["status"], "repaired")).as_py() or 0
        rows.append(
            [
                *(split, entry["samples"], entry["skipped"], repaired, len(entry["shards"])),
                *(f"{bytes_in / 1e6:,.1f} MB", f"{bytes_out / 1e6:,.1f} MB", f"{bytes_out / max(bytes_in, 1):.0%}"),
            ]
        )
    settings = {k: v for k, v in info["settings"].items() if v not in (None, "", 0) and k != "labelmap"}
    lines = [f"{info['source']['layout']}, {info['classes']:,} classes; {', '.join(dataset.formats)} shards."]
    lines.append("Settings: " + ", ".join(f"{key} {value}" for key, value in settings.items()) + ".")
    if info["problem"]:
        lines.append(f"Accepted as it is: {info['problem']}.")
    lines += _copies(splits)
    header = ["split", "samples", "skipped", "repaired", "shards", "bytes in", "bytes stored", "ratio"]
    return table(header, rows) + "".join(f"<p>{text(line)}</p>" for line in lines)


def _copies(splits: dict[str, pa.Table]) -> Iterator[str]:
    """Images that occur more than once, told by the hash of the source's bytes."""
    hashes = {split: np.asarray(rows["source_xxh3"].drop_null()) for split, rows in splits.items()}
    for split, rows in splits.items():
        if several := pc.sum(pc.greater(pc.list_value_length(rows["wnids"]), 1)).as_py():
            yield f"{several:,} images of {split} are of several classes."
        if repeated := len(hashes[split]) - len(np.unique(hashes[split])):
            yield f"{repeated:,} images of {split} repeat another one, byte for byte."
        shared = int(np.isin(hashes[split], hashes["train"]).sum()) if "train" in hashes else 0
        if split != "train" and shared:
            yield f"{shared:,} images of {split} are in train too, byte for byte."


def _classes(tree: Node) -> str:
    largest = max((child.count for child in tree.children), default=1)

    def show(node: Node, depth: int) -> str:
        splits = ", ".join(f"{count:,} {split}" for split, count in node.counts.items() if count)
        label = f"{text(node.name)} <small>{text(splits or 'no samples')}</small>"
        bar = f'<i class="bar" style="width:{100 * node.count / max(largest, 1):.2f}%"></i>'
        if not node.children:
            return f'<div class="leaf">{label}{bar}</div>'
        inner = "".join(show(child, depth + 1) for child in node.children)
        return details(f"{label} <small>· {node.classes:,} classes</small>{bar}", inner, opened=depth < 1)

    leaves = sorted(tree.leaves(), key=lambda node: (node.count, node.name))
    few = table(["fewest samples", "count"], [[node.name, node.count] for node in leaves[:8]])
    many = table(["most samples", "count"], [[node.name, node.count] for node in leaves[:-9:-1]])
    return f'<div class="columns">{few}{many}</div>' + "".join(show(child, 0) for child in tree.children)


def _histograms(splits: dict[str, pa.Table]) -> Iterator[str]:
    rows = pa.concat_tables(list(splits.values()))
    rows = rows.filter(pc.is_valid(rows["position"]))
    if not rows.num_rows:
        return
    width, height, out_width, out_height, size = (
        np.asarray(rows[name]).astype(np.float64)
        for name in ("source_width", "source_height", "width", "height", "bytes")
    )
    for name, values, unit in (
        ("Longer side, source", np.maximum(width, height), "pixels"),
        ("Longer side, stored", np.maximum(out_width, out_height), "pixels"),
        ("Width / height, source", width / height, ""),
        ("Stored bytes a sample", size / 1000, "kB"),
    ):
        low, high = np.quantile(values, [0.005, 0.995])
        edges = np.linspace(low, high if high > low else low + 1, 31)
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        caption = f"{name}: median {np.median(values):,.4g} {unit}, {values.min():,.4g} to {values.max():,.4g}"
        yield figure(bars(counts.tolist(), [f"{edge:,.4g}" for edge in edges]), caption)


def _mosaic(dataset: Dataset, tree: Node) -> str:
    """A few samples a superclass, all from the first shard, which has classes of every kind."""
    split = next((s for s in dataset.splits if dataset.info["splits"][s]["shards"]), None)
    if split is None:
        return "<p>No sample is stored.</p>"
    reader: BetonReader | WebDatasetReader
    if "beton" in dataset.formats:
        reader = BetonReader(dataset.shards(split)[0])
    else:
        reader = WebDatasetReader(dataset.shards(split, ".tar")[0])
    names = dataset.labels["name"].to_pylist()
    out = []
    for node in superclasses(tree, SUPERCLASSES):
        positions = np.flatnonzero(np.isin(reader.label, node.class_indices()))[:SHOWN]
        images = "".join(_thumbnail(reader.pixels(at), names[reader.label[at]]) for at in positions.tolist())
        out.append(f"<section><h3>{text(node.name)}</h3><div class='mosaic'>{images or 'none here'}</div></section>")
    return f"<p>Of the first shard of {text(split)}.</p><div class='columns'>{''.join(out)}</div>"


def _thumbnail(pixels: codec.Pixels, name: str) -> str:
    encoded = base64.b64encode(codec.encode(codec.center_crop(pixels, THUMBNAIL), quality=70)).decode()
    size = f'width="{THUMBNAIL}" height="{THUMBNAIL}"'
    return f'<img src="data:image/jpeg;base64,{encoded}" {size} alt="{text(name)}" title="{text(name)}">'


def _troubles(splits: dict[str, pa.Table]) -> str:
    out = []
    for kind in ("skipped", "repaired"):
        rows: list[list[Any]] = []
        total = 0
        for split, manifest in splits.items():
            found = manifest.filter(pc.starts_with(manifest["status"], kind))
            total += found.num_rows
            for row in found.slice(0, LISTED - len(rows)).to_pylist():
                rows.append([split, row["key"], row["status"].partition(":")[2], row["source"]])
        heading = f"{total:,} {kind}"
        if total > len(rows):
            heading += f", the first {len(rows):,} of them here, all in the manifests (*.parquet)"
        body = table(["split", "key", "cause", "source"], rows) if rows else "<p>None.</p>"
        out.append(details(text(heading), body, opened=kind == "skipped" and 0 < total <= 50))
    return "".join(out)
