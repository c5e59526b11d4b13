"""Images to check an export on, or to calibrate it with."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imgtool.pipelines import codec
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders.raw_split import RawSplit, is_raw
from imgtool.pipelines.loaders.samples import Samples
from imgtool.training.evaluation.splits import DATA
from imgtool.wordnet.errors import ImgtoolError

CHECK_IMAGES = 32
CALIBRATION_IMAGES = 512


def check_images(checkpoint: Path, data: str | Path | None, imgsz: int) -> tuple[list[codec.Pixels], bool]:
    """Returns images to check the export of a checkpoint on, and whether they are synthetic.

    They come from ``data`` if it is given, otherwise from the data set of the checkpoint's run, otherwise from
    data/imagenet. If none of these can be read, they are synthetic.
    """
    if data is not None:
        return list(sample_images(data, _split(data, "val"), CHECK_IMAGES)), False
    with contextlib.suppress(ImgtoolError, OSError, ValueError):
        run = json.loads((checkpoint.parent.parent / "run.json").read_text(encoding="utf-8"))
        return list(sample_images(str(run["data"]), run.get("val_split", "val"), CHECK_IMAGES)), False
    with contextlib.suppress(ImgtoolError):
        return list(sample_images(DATA, "val", CHECK_IMAGES)), False
    return synthetic_images(CHECK_IMAGES, imgsz), True


def calibration_images(data: str | Path) -> Iterator[codec.Pixels]:
    """Yields images to measure activation ranges on, from the train split if the data set has one."""
    return sample_images(data, _split(data, "train"), CALIBRATION_IMAGES)


def _split(data: str | Path, preferred: str) -> str:
    """Returns the preferred split if a prepared data set has it, else its first; for a raw one always the preferred."""
    if is_raw(data):
        return preferred
    splits = Dataset(data).splits
    return preferred if preferred in splits else splits[0]


def sample_images(data: str | Path, split: str, count: int, seed: int = 0) -> Iterator[codec.Pixels]:
    """Yields ``count`` images (all, if there are fewer) of a prepared or raw data set, uint8 [H, W, 3] each.

    They are balanced over the classes and random within each. Raises DatasetError for a path that is not a data set or
    lacks the split, ImageError for an image that cannot be decoded.
    """
    if is_raw(data):
        with RawSplit(data, split) as raw:
            yield from map(codec.decode, raw.read(balanced_indices(raw.labels, count, seed)))
        return
    samples = Samples(Dataset(data), split)
    for index in balanced_indices(samples.label, count, seed):
        yield samples.pixels(index)


def balanced_indices(labels: npt.NDArray[np.int64], count: int, seed: int) -> Sequence[int]:
    """Returns ``count`` random positions in ``labels``, equally many per class as far as each class has them."""
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = labels[order]
    _, inverse, counts = np.unique(shuffled, return_inverse=True, return_counts=True)
    by_label = np.argsort(inverse, kind="stable")
    turn = np.empty(len(labels), np.int64)  # the number of samples of the same class that come before
    turn[by_label] = np.concatenate([np.arange(n) for n in counts]) if len(counts) else []
    chosen: list[int] = order[np.argsort(turn, kind="stable")][:count].tolist()
    return chosen


def synthetic_images(count: int, imgsz: int, seed: int = 0) -> list[codec.Pixels]:
    """Returns clouds of colour: noise whose energy falls with frequency (1/f), as that of photographs does.

    They are larger than ``imgsz`` and not square, uint8 [imgsz + 40, imgsz + 90, 3].
    """
    rng = np.random.default_rng(seed)
    height, width = imgsz + 40, imgsz + 90
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) + 1 / width
    images = []
    for _ in range(count):
        spectrum = np.fft.rfft2(rng.standard_normal((3, height, width))) / frequency
        clouds = np.fft.irfft2(spectrum, (height, width)).transpose(1, 2, 0)
        clouds = (clouds - clouds.mean()) / clouds.std() * 60 + rng.uniform(60, 190, 3)
        images.append(np.ascontiguousarray(clouds.clip(0, 255).astype(np.uint8)))
    return images
