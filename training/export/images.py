"""Real images to check or to calibrate a model on."""

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

CHECK = 32  # images
CALIBRATION = 512


def to_check(source: Path, data: str | Path | None, side: int) -> tuple[list[codec.Pixels], bool]:
    """Images to check the export of the checkpoint ``source`` on: of the data set given, or of its run's, or of the
    one in the usual place; or else drawn ones, and True."""
    if data is not None:
        return list(draw(data, _split_of(data, "val"), CHECK)), False
    with contextlib.suppress(ImgtoolError, OSError, ValueError):
        data = json.loads((source.parent.parent / "run.json").read_text(encoding="utf-8"))["data"]
        return list(draw(str(data), "val", CHECK)), False
    with contextlib.suppress(ImgtoolError):
        return list(draw(DATA, "val", CHECK)), False
    return clouds(CHECK, side), True


def to_calibrate(data: str | Path) -> Iterator[codec.Pixels]:
    """Images of a data set to measure ranges on: of those to train on, where it has them."""
    return draw(data, _split_of(data, "train"), CALIBRATION)


def _split_of(data: str | Path, wanted: str) -> str:
    """The wanted split of a prepared data set if it has that, else its first; a raw one is asked for the wanted."""
    if is_raw(data):
        return wanted
    splits = Dataset(data).splits
    return wanted if wanted in splits else splits[0]


def draw(data: str | Path, split: str, count: int, seed: int = 0) -> Iterator[codec.Pixels]:
    """``count`` images (all, if there are fewer) of a prepared or raw data set, uint8 [H, W, 3] each.

    They are drawn by class: from each in turn, at random within it. Raises DatasetError for what is no data set or has
    no such split, ImageError for an image that cannot be decoded.
    """
    if is_raw(data):
        with RawSplit(data, split) as raw:
            yield from map(codec.decode, raw.read(by_class(raw.labels, count, seed)))
        return
    samples = Samples(Dataset(data), split)
    for index in by_class(samples.label, count, seed):
        yield samples.pixels(index)


def by_class(labels: npt.NDArray[np.int64], count: int, seed: int) -> Sequence[int]:
    """Indices of ``count`` labels, as many of one class as of another where it has so many."""
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = labels[order]
    _, inverse, counts = np.unique(shuffled, return_inverse=True, return_counts=True)
    by_label = np.argsort(inverse, kind="stable")
    turn = np.empty(len(labels), np.int64)  # how many of its class come before it
    turn[by_label] = np.concatenate([np.arange(n) for n in counts]) if len(counts) else []
    chosen: list[int] = order[np.argsort(turn, kind="stable")][:count].tolist()
    return chosen


def clouds(count: int, side: int, seed: int = 0) -> list[codec.Pixels]:
    """Clouds of colour, for want of images: noise of all scales, its energy falling with frequency as theirs does."""
    rng = np.random.default_rng(seed)
    height, width = side + 40, side + 90
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) + 1 / width
    images = []
    for _ in range(count):
        spectrum = np.fft.rfft2(rng.standard_normal((3, height, width))) / frequency
        clouds = np.fft.irfft2(spectrum, (height, width)).transpose(1, 2, 0)
        clouds = (clouds - clouds.mean()) / clouds.std() * 60 + rng.uniform(60, 190, 3)
        images.append(np.ascontiguousarray(clouds.clip(0, 255).astype(np.uint8)))
    return images
