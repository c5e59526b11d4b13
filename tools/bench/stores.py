"""Table: the disk space and the loading speed of each way to store images.

\b
    imgtool bench stores --src ILSVRC2012

Native loader, one thread, random crops of area (0.08, 1) at 224 pixels, uint8. The stores take turns; rates are medians
of the rounds. The size of the whole training split is the mean size of the measured images times 1,281,167.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from imgtool.bench import machine
from imgtool.bench.loader import Epoch, check_batch, native_epochs, rate_of
from imgtool.bench.options import DRAWN, SourcePath, json_option, rehearsal, write_json
from imgtool.bench.prepare import first_images, write_layouts
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import open_loader
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings

STORES = {
    "original": Settings(store="original", max_side=0),
    "fit 500": Settings(store="fit", max_side=500),
    "jpeg 500": Settings(store="jpeg", max_side=500),
    "jpeg 400": Settings(store="jpeg", max_side=400),
    "jpeg-indexed 500": Settings(store="jpeg-indexed", max_side=500),
    "jpeg-indexed 400": Settings(store="jpeg-indexed", max_side=400),
    "raw 500": Settings(store="raw", max_side=500),
    "raw 400": Settings(store="raw", max_side=400),
}
IMAGENET = 1_281_167
"""Training images of ILSVRC2012."""


@click.command(help=__doc__)
@click.option("--src", required=True, type=SourcePath(), help="ILSVRC2012, or another source with a train split.")
@click.option("--images", default=500, show_default=True, type=click.IntRange(1), help="Images to take from it.")
@click.option(
    "--repeat", default=8, show_default=True, type=click.IntRange(1), help="Copies of each image in the data sets."
)
@click.option("--batch", default=256, show_default=True, type=click.IntRange(1), help="Samples per batch.")
@click.option("--imgsz", default=224, show_default=True, type=click.IntRange(32), help="Side of the crops in pixels.")
@click.option(
    "--rounds",
    default=5,
    show_default=True,
    type=click.IntRange(1),
    help="Epochs to take medians of.",
)
@json_option
@rehearsal(src=DRAWN, images=40, repeat=1, batch=4, imgsz=32, rounds=1)
def main(
    src: str,
    images: int,
    repeat: int,
    batch: int,
    imgsz: int,
    rounds: int,
    json_path: Path | None,
    rehearse: bool,
) -> None:
    epochs: dict[str, Epoch] = {}
    mean_bytes: dict[str, float] = {}
    rates: dict[str, list[float]] = {store: [] for store in STORES}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stored = write_layouts(first_images(src, images), repeat, folder)
        check_batch(stored, batch)
        for store, settings in STORES.items():
            prepare(folder, folder / store, settings)
            data = Dataset(folder / store)
            mean_bytes[store] = float(np.mean(data.manifest("train")["bytes"]))
            epochs[store] = native_epochs(
                open_loader(data, "train", batch_size=batch, image_size=imgsz, num_workers=1, drop_last=True)
            )
        for _ in range(rounds):
            for store, epoch in epochs.items():
                rates[store].append(rate_of(epoch, batch)[0])
    for store, rate in rates.items():
        size = mean_bytes[store]
        click.echo(
            f"{store:18} {size / 1e3:7.1f} kB per image  {size * IMAGENET / 1e9:6.1f} GB for ImageNet's train split  "
            f"{statistics.median(rate):7,.0f} images/s per core"
        )
    result: dict[str, Any] = {
        "bench": "stores",
        "rehearsal": rehearse,
        "machine": machine.describe(),
        "images": stored,
        "batch": batch,
        "image_size": imgsz,
        "mean_bytes": mean_bytes,
        "rates": rates,
    }
    write_json(json_path, result)
