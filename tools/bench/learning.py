"""Claim: a few epochs on a CPU learn real images. Tiny-ImageNet's training and validation images are disjoint.

\b
    imgtool bench learning --src tiny-imagenet-200.tar --epochs 5

Prepares the archive, trains the n model at 64 pixels, validates each epoch, and prints the curve.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click

from imgtool.bench import machine
from imgtool.bench.options import DRAWN, SourcePath, json_option, rehearsal, write_json
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings


def learn(src: str | Path, epochs: int, batch: int, seed: int, folder: Path, classes: str = "") -> dict[str, Any]:
    """Prepares ``src`` and trains on it in ``folder``; returns the curve, with times in seconds.

    Args:
        classes: as for ``imgtool prepare --classes``; "" for all.
    """
    from imgtool.training.classifier import Classifier

    started = time.perf_counter()
    prepare(src, folder / "data", Settings(classes=classes))
    prepared = time.perf_counter() - started
    curve: list[dict[str, float]] = []
    Classifier("n").train(
        data=folder / "data",
        epochs=epochs,
        batch=batch,
        imgsz=64,
        seed=seed,
        name=folder / "run",
        on_epoch=lambda epoch, m: curve.append({"epoch": epoch, "top1": m.top1, "top5": m.top5, "loss": m.loss}),
    )
    dataset = Dataset(folder / "data")
    return {
        "bench": "learning",
        "machine": machine.describe(),
        "classes": dataset.num_classes,
        "train": dataset.num_samples("train"),
        "val": dataset.num_samples("val"),
        "batch": batch,
        "seed": seed,
        "prepare_seconds": round(prepared, 2),
        "total_seconds": round(time.perf_counter() - started, 2),
        "curve": curve,
    }


@click.command(help=__doc__)
@click.option("--src", required=True, type=SourcePath(), help="Tiny-ImageNet as a tar or folder.")
@click.option("--epochs", default=5, show_default=True, type=click.IntRange(1), help="Epochs to train.")
@click.option("--batch", default=64, show_default=True, type=click.IntRange(1), help="Samples per step.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of weights, order and crops.")
@json_option
@rehearsal(src=DRAWN, epochs=1, batch=16)
def main(src: str, epochs: int, batch: int, seed: int, json_path: Path | None, rehearse: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = learn(src, epochs, batch, seed, Path(folder)) | {"rehearsal": rehearse}
    for row in result["curve"]:
        click.echo(f"epoch {row['epoch']}: top-1 {row['top1']:.2%}  top-5 {row['top5']:.2%}")
    chance = 1 / result["classes"]
    click.echo(
        f"{result['curve'][-1]['top1'] / chance:.0f} times chance ({chance:.1%}) on {result['val']:,} held-out "
        f"images, {result['total_seconds']:.0f} s including prepare"
    )
    write_json(json_path, result)
