"""Table: what each stored form costs on disk and brings in loading.

\b
    imgtool bench stores --src ILSVRC2012

Native loader, one thread, random crops of area (0.08, 1) at 224 pixels, uint8; the forms turn by turn, medians of the
rounds. The bytes of the whole training split are the mean of the images taken times 1,281,167.
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
from imgtool.bench.prepare import gather, write_layouts
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import open_loader
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings

FORMS = {
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
@click.option("--images", default=500, show_default=True, type=click.IntRange(1), help="Images taken from it.")
@click.option(
    "--repeat", default=8, show_default=True, type=click.IntRange(1), help="Copies of each in the data sets made of it."
)
@click.option("--batch", default=256, show_default=True, type=click.IntRange(1), help="Samples a batch.")
@click.option("--imgsz", default=224, show_default=True, type=click.IntRange(32), help="Side of the crops in pixels.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Epochs that a median is of.")
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
    rates: dict[str, list[float]] = {form: [] for form in FORMS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stored = write_layouts(gather(src, images), repeat, folder)
        check_batch(stored, batch)
        for form, settings in FORMS.items():
            prepare(folder, folder / form, settings)
            data = Dataset(folder / form)
            mean_bytes[form] = float(np.mean(data.manifest("train")["bytes"]))
            epochs[form] = native_epochs(
                open_loader(data, "train", batch_size=batch, image_size=imgsz, num_workers=1, drop_last=True)
            )
        for _ in range(rounds):
            for form, epoch in epochs.items():
                rates[form].append(rate_of(epoch, batch)[0])
    for form, rate in rates.items():
        size = mean_bytes[form]
        click.echo(
            f"{form:18} {size / 1e3:7.1f} kB an image  {size * IMAGENET / 1e9:6.1f} GB for ImageNet's train  "
            f"{statistics.median(rate):7,.0f} img/s a core"
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
