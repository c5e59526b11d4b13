"""The data sets of the loaders and train parts: some images, repeated up to the size of a real data set."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

from imgtool.bench.gpu.settings import BenchSettings
from imgtool.bench.prepare import first_images
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.sample import write_sample


def data_set(settings: BenchSettings, side: int) -> Dataset:
    """Returns the data set whose images have the longer side ``side``; prepares it in ``settings.work`` if needed.

    The training split repeats the first images of the source, or synthetic ones, up to ``workload.samples``. The
    validation split has each of them once, so accuracy on it means nothing.
    """
    workload = settings.workload
    name = f"{Path(settings.src).name if settings.src else 'drawn'}-{workload.images}-{workload.samples}"
    out = settings.work / f"{name}-{side}"
    if not (out / "dataset.json").exists():
        files = settings.work / name
        if not files.exists():
            unfinished = files.with_name(f"{name}.tmp")
            shutil.rmtree(unfinished, ignore_errors=True)
            _write(settings, unfinished)
            unfinished.rename(files)
        click.echo(f"preparing {workload.samples:,} samples of longer side {side}")
        prepare(files, out, Settings(max_side=side))
    return Dataset(out)


def _write(settings: BenchSettings, folder: Path) -> None:
    """Writes train/CLASS/KEY_NUMBER.JPEG and val/CLASS/KEY.JPEG. Repetitions are hard links to the image."""
    source, wanted = settings.src, settings.workload.images
    if source is None:
        drawn = folder / "source"
        write_sample(drawn, train_count=max(4, -(-wanted // 10)), val_count=1)
        source = str(drawn)
    classes = first_images(source, wanted)
    if settings.src is None:
        shutil.rmtree(drawn)
    repeat = -(-settings.workload.samples // sum(map(len, classes.values())))
    left = settings.workload.samples
    for wnid, images in classes.items():
        for split in ("train", "val"):
            (folder / split / wnid).mkdir(parents=True)
        for key, data in images:
            one = folder / "val" / wnid / f"{key}.JPEG"
            one.write_bytes(data)
            for number in range(min(repeat, left)):
                os.link(one, folder / "train" / wnid / f"{key}_{number}.JPEG")
            left -= min(repeat, left)
