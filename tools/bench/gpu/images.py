"""The images of the loader and train parts: some real ones, repeated until they are as many as a real data set's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

from imgtool.bench.gpu.plan import Plan
from imgtool.bench.prepare import gather
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.sample import write_sample


def data_set(plan: Plan, side: int) -> Dataset:
    """The scale's number of training samples, of longer side ``side``; made below ``plan.work`` if not there already.

    They are the first images of the source, or drawn ones, again and again; their validation split is each of them
    once, so that accuracy on it means nothing.
    """
    scale = plan.scale
    name = f"{Path(plan.src).name if plan.src else 'drawn'}-{scale.images}-{scale.samples}"
    out = plan.work / f"{name}-{side}"
    if not (out / "dataset.json").exists():
        files = plan.work / name
        if not files.exists():
            unfinished = files.with_name(f"{name}.tmp")
            shutil.rmtree(unfinished, ignore_errors=True)
            _write(plan, unfinished)
            unfinished.rename(files)
        click.echo(f"preparing {scale.samples:,} samples of longer side {side}")
        prepare(files, out, Settings(max_side=side))
    return Dataset(out)


def _write(plan: Plan, folder: Path) -> None:
    """train/CLASS/KEY_NUMBER.JPEG and val/CLASS/KEY.JPEG; an image is one file, its repetitions are links to it."""
    source, wanted = plan.src, plan.scale.images
    if source is None:
        drawn = folder / "source"
        write_sample(drawn, train_count=max(4, -(-wanted // 10)), val_count=1)
        source = str(drawn)
    classes = gather(source, wanted)
    if plan.src is None:
        shutil.rmtree(drawn)
    repeat = -(-plan.scale.samples // sum(map(len, classes.values())))
    left = plan.scale.samples
    for wnid, images in classes.items():
        for split in ("train", "val"):
            (folder / split / wnid).mkdir(parents=True)
        for key, data in images:
            one = folder / "val" / wnid / f"{key}.JPEG"
            one.write_bytes(data)
            for number in range(min(repeat, left)):
                os.link(one, folder / "train" / wnid / f"{key}_{number}.JPEG")
            left -= min(repeat, left)
