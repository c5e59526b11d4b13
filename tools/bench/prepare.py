"""Claim: prepare recodes images at least twice as fast as FFCV's DatasetWriter.

\b
    imgtool bench prepare --src ILSVRC2012

Both convert the same images to .beton files, with a longer side of at most 500 and 400 pixels, JPEG quality 90, and one
and two workers. They take turns. FFCV reads an image folder through Pillow, as ffcv-imagenet does. imgtool reads the
tar of class tars; its time includes start-up, manifest, hashes and report. Its shards are of 32 MB, so that even a
small data set has enough shards for two workers. For comparison, two loops process the same bytes in memory on one
core: decoding, resizing and encoding in RGB with libjpeg-turbo, and imgtool's recoding. Rates are medians of all
rounds.

--slow-source measures something else: how often prepare reads a source, and what that costs on a spinning disk and on
an object store, beside one read per image in random order.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from imgtool.bench import machine
from imgtool.bench import slow_source as slow
from imgtool.bench.options import DRAWN, SourcePath, json_option, rehearsal, versions, write_json
from imgtool.pipelines import codec
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.loaders import missing
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import InputError

STORES = ("jpeg", "fit")  # those that limit the size and write JPEG, as FFCV's writer does


def first_images(src: str, images: int) -> dict[str, list[tuple[str, bytes]]]:
    """Returns the first ``images`` images of the source's training split, by class: (file name, bytes).

    Raises:
        InputError: the source has no training images.
    """
    source = open_source(src)
    out: dict[str, list[tuple[str, bytes]]] = {}
    with LocatorReader(source.root) as reader:
        records = source.records("train") if "train" in source.splits else iter(())
        for number, record in enumerate(records):
            if number == images:
                break
            out.setdefault(record.wnids[0], []).append((record.key, reader.read(record.locator)))
    if not out:
        raise InputError(f"{src}: the source has no training images")
    return out


def write_layouts(classes: dict[str, list[tuple[str, bytes]]], repeat: int, folder: Path) -> int:
    """Writes each image ``repeat`` times, into an image folder for FFCV and into a tar of class tars for imgtool.

    Returns the number of image files.
    """
    slow.write_tar(classes, repeat, folder)
    for wnid, images in classes.items():
        (folder / "images" / wnid).mkdir(parents=True)
        for i in range(repeat):
            for key, data in images:
                (folder / "images" / wnid / f"{key}_{i}.JPEG").write_bytes(data)
    return sum(map(len, classes.values())) * repeat


def ffcv_writer(images: Path, out: Path, max_side: int, workers: int) -> None:
    """Does what ffcv-imagenet's write_imagenet.py does."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    fields = {
        "image": RGBImageField(write_mode="jpg", max_resolution=max_side, jpeg_quality=90),
        "label": IntField(),
    }
    DatasetWriter(str(out), fields, num_workers=workers).from_indexed_dataset(ImageFolder(str(images)))


def rgb_loop(images: list[bytes], max_side: int) -> None:
    """Decodes to RGB with libjpeg-turbo, resizes with antialiasing, and encodes."""
    for data in images:
        pixels = codec.decode(data)
        height, width = pixels.shape[:2]
        scale = min(1.0, max_side / max(width, height))
        if scale < 1:
            pixels = codec.resize_crop(pixels, (0, 0, width, height), (round(width * scale), round(height * scale)))
        codec.encode(pixels)


def own_loop(images: list[bytes], max_side: int) -> None:
    """Recodes with imgtool's codec."""
    for data in images:
        codec.recode(data, max_side=max_side)


@click.command(help=__doc__)
@click.option("--src", required=True, type=SourcePath(), help="ILSVRC2012, or another source with a train split.")
@click.option("--images", default=500, show_default=True, type=click.IntRange(1), help="Images to take from it.")
@click.option(
    "--repeat", default=24, show_default=True, type=click.IntRange(1), help="Copies of each image in the data set."
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Runs to take medians of.")
@click.option("--slow-source", is_flag=True, help="Count the reads of tar and parquet instead, and model their cost.")
@json_option
@rehearsal(src=DRAWN, images=40, repeat=1, rounds=1)
def main(
    src: str, images: int, repeat: int, rounds: int, slow_source: bool, json_path: Path | None, rehearse: bool
) -> None:
    if slow_source:
        result = slow.measure(first_images(src, images), repeat)
        slow.show(result)
        write_json(
            json_path, {"bench": "prepare", "rehearsal": rehearse, "machine": machine.describe(), "slow_source": result}
        )
        return
    absent = missing("ffcv")
    peer = "" if absent else f"FFCV {versions(['ffcv']).get('ffcv', '')}".strip()
    if absent:
        click.echo(f"ffcv: not available: {absent}")
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        classes = first_images(src, images)
        images = write_layouts(classes, repeat, folder)
        once = [data for of_class in classes.values() for _, data in of_class]

        def timed(name: str, scale: int, job: Callable[..., object], *arguments: Any, **options: Any) -> None:
            started = time.perf_counter()
            job(*arguments, **options)
            seconds.setdefault(name, []).append((time.perf_counter() - started) * scale)
            shutil.rmtree(folder / "out", ignore_errors=True)
            (folder / "ffcv.beton").unlink(missing_ok=True)

        for _ in range(rounds):
            for side in (500, 400):
                for workers in (1, 2):
                    if peer:
                        images_folder, beton = folder / "images", folder / "ffcv.beton"
                        timed(f"ffcv {side} {workers}", 1, ffcv_writer, images_folder, beton, side, workers)
                    for store in STORES:
                        settings = Settings(max_side=side, store=store, shard_size=32)
                        timed(
                            f"{store} {side} {workers}", 1, prepare, folder, folder / "out", settings, workers=workers
                        )
                timed(f"rgb {side} 1", repeat, rgb_loop, once, side)
                timed(f"own {side} 1", repeat, own_loop, once, side)
    rates = {name: images / statistics.median(times) for name, times in seconds.items()}
    _show(rates)
    result = {
        "bench": "prepare",
        "rehearsal": rehearse,
        "machine": machine.describe(),
        "peer": peer,
        "images": images,
        "mean_bytes": round(statistics.mean(map(len, once))),
        "seconds": seconds,
    }
    write_json(json_path, result)


def _show(rates: dict[str, float]) -> None:
    """Prints images/s, and their ratios to FFCV, to the loops in memory, and to one worker."""
    for name, rate in rates.items():
        kind, side, workers = name.split()
        line = f"max side {side}, {workers} worker{'s' if workers != '1' else ' '}  {kind:5} {rate:8,.0f} images/s"
        if f"ffcv {side} {workers}" in rates and kind in STORES:
            line += f"  {rate / rates[f'ffcv {side} {workers}']:5.2f} x FFCV's rate"
        if kind == "jpeg" and workers == "1":
            rgb, own = (rate / rates[f"{loop} {side} 1"] for loop in ("rgb", "own"))
            line += f"  {rgb:.0%} of the RGB loop, {own:.0%} of imgtool's loop"
        if workers == "2":
            line += f"  {rate / rates[f'{kind} {side} 1']:.2f} x its rate with one worker"
        click.echo(line)
