"""Claim: prepare recodes images at least twice as fast as FFCV's DatasetWriter.

\b
    imgtool bench prepare --src ILSVRC2012

Both turn the same images into .beton files, longer side at most 500 and 400 pixels, JPEG quality 90, with one worker
and two, in turn: FFCV as ffcv-imagenet does it, from an image folder through Pillow; ours from the tar of class tars,
start-up, manifest, hashes and report counted; in shards of 32 MB, so that a small data set too has enough of them for
two workers. Beside them bare loops over the same bytes in memory on one core: decode, resize and encode through
libjpeg-turbo in RGB, and our own recode. Medians of all rounds; raw numbers as JSON.
"""

from __future__ import annotations

import io
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from imgtool.bench import machine
from imgtool.bench.options import DRAWN, SourcePath, json_option, rehearsal, versions, write_json
from imgtool.pipelines import codec
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.loaders import missing
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import InputError

STORES = ("jpeg", "fit")  # the stores that recode within the sizes and give JPEG, as FFCV's writer does


def gather(src: str, images: int) -> dict[str, list[tuple[str, bytes]]]:
    """The first images of the source's training split, by class: (file name, bytes).

    Raises InputError if it has none.
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
        raise InputError(f"{src}: it has no training images")
    return out


def write_layouts(classes: dict[str, list[tuple[str, bytes]]], repeat: int, folder: Path) -> int:
    """Writes the images ``repeat`` times over, as an image folder for FFCV and as a tar of class tars for us, and
    returns how many files that is."""
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
        for wnid, images in classes.items():
            (folder / "images" / wnid).mkdir(parents=True)
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for i in range(repeat):
                    for key, data in images:
                        name = f"{key}_{i}.JPEG"
                        (folder / "images" / wnid / name).write_bytes(data)
                        _add(archive, name, data)
            _add(outer, f"{wnid}.tar", inner.getvalue())
    return sum(map(len, classes.values())) * repeat


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def ffcv_writer(images: Path, out: Path, max_side: int, workers: int) -> None:
    """ffcv-imagenet's write_imagenet.py, without its options."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    fields = {
        "image": RGBImageField(write_mode="jpg", max_resolution=max_side, jpeg_quality=90),
        "label": IntField(),
    }
    DatasetWriter(str(out), fields, num_workers=workers).from_indexed_dataset(ImageFolder(str(images)))


def rgb_loop(images: list[bytes], max_side: int) -> None:
    """Decode, resize, encode: libjpeg-turbo's RGB and an antialiased resize."""
    for data in images:
        pixels = codec.decode(data)
        height, width = pixels.shape[:2]
        scale = min(1.0, max_side / max(width, height))
        if scale < 1:
            pixels = codec.resize_crop(pixels, (0, 0, width, height), (round(width * scale), round(height * scale)))
        codec.encode(pixels)


def own_loop(images: list[bytes], max_side: int) -> None:
    for data in images:
        codec.recode(data, max_side=max_side)


@click.command(help=__doc__)
@click.option("--src", required=True, type=SourcePath(), help="ILSVRC2012, or another source with a train split.")
@click.option("--images", default=500, show_default=True, type=click.IntRange(1), help="Images taken from it.")
@click.option(
    "--repeat", default=24, show_default=True, type=click.IntRange(1), help="Copies of each in the data set made of it."
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Runs that a median is of.")
@json_option
@rehearsal(src=DRAWN, images=40, repeat=1, rounds=1)
def main(src: str, images: int, repeat: int, rounds: int, json_path: Path | None, rehearse: bool) -> None:
    absent = missing("ffcv")
    peer = "" if absent else f"FFCV {versions(['ffcv']).get('ffcv', '')}".strip()
    if absent:
        click.echo(f"ffcv: not here: {absent}")
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        classes = gather(src, images)
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
    """Images a second, and what they are of FFCV's, of the bare loops', and of one worker's."""
    for name, rate in rates.items():
        kind, side, workers = name.split()
        line = f"max side {side}, {workers} worker{'s' if workers != '1' else ' '}  {kind:5} {rate:8,.0f} img/s"
        if f"ffcv {side} {workers}" in rates and kind in STORES:
            line += f"  {rate / rates[f'ffcv {side} {workers}']:5.2f} x FFCV"
        if kind == "jpeg" and workers == "1":
            line += (
                f"  {rate / rates[f'rgb {side} 1']:.0%} of the RGB loop, {rate / rates[f'own {side} 1']:.0%} of ours"
            )
        if workers == "2":
            line += f"  {rate / rates[f'{kind} {side} 1']:.2f} x one worker"
        click.echo(line)
