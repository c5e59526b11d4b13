"""imgtool info"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

CITATIONS = """\
@article{ILSVRC15,
  author = {Olga Russakovsky and Jia Deng and Hao Su and Jonathan Krause and Sanjeev Satheesh and Sean Ma and
            Zhiheng Huang and Andrej Karpathy and Aditya Khosla and Michael Bernstein and Alexander C. Berg and
            Li Fei-Fei},
  title = {{ImageNet Large Scale Visual Recognition Challenge}},
  journal = {International Journal of Computer Vision (IJCV)},
  year = {2015}, volume = {115}, number = {3}, pages = {211--252}, doi = {10.1007/s11263-015-0816-y}
}
@inproceedings{imagenet_cvpr09,
  author = {Deng, J. and Dong, W. and Socher, R. and Li, L.-J. and Li, K. and Fei-Fei, L.},
  title = {{ImageNet: A Large-Scale Hierarchical Image Database}},
  booktitle = {CVPR09}, year = {2009}
}
@article{miller1995wordnet,
  author = {George A. Miller},
  title = {{WordNet: A Lexical Database for English}},
  journal = {Communications of the ACM},
  year = {1995}, volume = {38}, number = {11}, pages = {39--41}, doi = {10.1145/219717.219748}
}
@inproceedings{leclerc2023ffcv,
  author = {Guillaume Leclerc and Andrew Ilyas and Logan Engstrom and Sung Min Park and Hadi Salman and
            Aleksander M\\k{a}dry},
  title = {{FFCV: Accelerating Training by Removing Data Bottlenecks}},
  booktitle = {Computer Vision and Pattern Recognition (CVPR)}, year = {2023}
}
@software{yolov8_ultralytics,
  author = {Glenn Jocher and Ayush Chaurasia and Jing Qiu},
  title = {{Ultralytics YOLOv8}}, year = {2023}, version = {8.0.0}
}
"""


@click.command()
@click.argument("path", required=False)
@click.option(
    "--backends", is_flag=True, help="List the loaders that can be used on this machine, and why others cannot."
)
@click.option(
    "--cite",
    is_flag=True,
    help="Print the BibTeX entries of ImageNet, WordNet and the other work that imgtool builds on.",
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def info(path: str | None, backends: bool, cite: bool, as_json: bool) -> None:
    """Describe a data set, checkpoint or run; or the model sizes.

    PATH is a prepared data set, a checkpoint or a run directory. Without PATH, the five model sizes are listed.
    """
    if cite:
        click.echo(CITATIONS, nl=False)
        return
    if backends:
        described = _backends()
    elif path is None:
        described = _sizes()
    elif (Path(path) / "dataset.json").exists():
        described = _dataset(path)
    else:
        described = _checkpoint(path)
    if as_json:
        click.echo(json.dumps(described))
        return
    if path is None and not backends:
        _echo_sizes(described["sizes"])
        return
    for key, value in described.items():
        click.echo(f"{key:12} {_text(key, value)}")


def _text(key: str, value: Any) -> str:
    """Formats a value of a description for people."""
    if key == "settings":
        return ", ".join(f"{name} {setting}" for name, setting in value.items())
    if isinstance(value, dict):  # a split
        return "{samples:,} samples, {skipped:,} skipped, {shards} shards, {mb:,.1f} MB".format(
            **value, mb=value["bytes"] / 1e6
        )
    if isinstance(value, float):
        return f"{value:.2%}"
    return f"{value:,}" if key == "parameters" else str(value)


def _backends() -> dict[str, Any]:
    from imgtool.pipelines.loaders import BACKENDS, missing

    return {backend: missing(backend) or "usable" for backend in BACKENDS}


def _dataset(path: str) -> dict[str, Any]:
    from imgtool.pipelines.dataset import Dataset

    dataset = Dataset(path)
    out: dict[str, Any] = {
        "data set": path,
        "source": "{layout} {name}".format(**dataset.info["source"]),
        "classes": dataset.num_classes,
    }
    for name, split in dataset.info["splits"].items():
        size = sum(file["bytes"] for shard in split["shards"] for file in shard["files"])
        counts = {"samples": split["samples"], "skipped": split["skipped"]}
        out[name] = {**counts, "shards": len(split["shards"]), "bytes": size}
    out["settings"] = dataset.info["settings"]
    if dataset.info["problem"]:
        out["accepted"] = dataset.info["problem"]
    out["fingerprint"] = dataset.fingerprint
    return out


def _checkpoint(path: str) -> dict[str, Any]:
    if not Path(path).exists():
        raise click.UsageError(f"{path}: there is no data set, checkpoint or run at this path")

    from imgtool.training.classifier import Classifier
    from imgtool.training.models import yolov8

    classifier = Classifier(path)
    out: dict[str, Any] = {
        "checkpoint": str(classifier.checkpoint or path),
        "size": classifier.size,
        "classes": len(classifier.wnids),
        "parameters": yolov8.count_parameters(classifier.model),
        "imgsz": classifier.imgsz,
    }
    if classifier.metrics:
        out["top-1"] = float(classifier.metrics["top1"])
        out["top-5"] = float(classifier.metrics["top5"])
    return out


def _sizes() -> dict[str, Any]:
    import torch

    from imgtool.training.models import yolov8
    from imgtool.training.models.flops import flops, published_flops

    rows = []
    for size in yolov8.SCALES:
        with torch.device("meta"):  # shapes without values
            model = yolov8.build(size)
        rows.append(
            {
                "size": size,
                "parameters": yolov8.count_parameters(model),
                "fused": yolov8.count_parameters(yolov8.fuse(model)),
                "gflops_224": flops(model, 224) / 1e9,
                "gflops_640": flops(model, 640) / 1e9,
                "published_gflops": published_flops(model) / 1e9,
            }
        )
    return {"sizes": rows}


def _echo_sizes(rows: list[dict[str, Any]]) -> None:
    click.echo("size   parameters        fused  GFLOPs at 224  at 640   published table's")
    line = "{size:4} {parameters:12,} {fused:12,} {gflops_224:14.3f} {gflops_640:7.2f} {published_gflops:19.1f}"
    for row in rows:
        click.echo(line.format(**row))
    click.echo("FLOPs are 2 x multiply-adds of the fused model with 1000 classes. The published figures are those of")
    click.echo("one 32 x 32 image times 400, which counts the classifier 400 times.")
