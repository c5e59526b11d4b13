"""The settings of ``imgtool bench gpu``: what to measure, on which device, for how long."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass(frozen=True)
class Workload:
    """The amount of work in each part.

    By default, each part takes less than ten minutes on an H100 with 16 cores, or continues where it stopped.
    """

    sizes: tuple[str, ...] = ("n", "s", "m", "l", "x")
    image_sizes: tuple[int, ...] = (224, 160, 128)  # all sizes at the first one, only n at the others
    batches: tuple[int, ...] = (512, 1024, 256)  # of the model part, the most informative one first
    threads: tuple[int, ...] = (1, 4, 8, 16)  # of the loaders
    sides: tuple[int, ...] = (256, 400)  # longer sides of the loaders' stored images
    train_side: int = 500  # as prepare stores them by default
    loader_batch: int = 256
    train_batch: int = 0  # 0: the recipe's
    images: int = 500  # distinct images
    samples: int = 50_000  # in a data set, which repeats the images
    rounds: int = 5  # results are medians over the rounds
    steps: int = 20  # per round of the model part
    seconds: float = 3.0  # per round of the loaders part
    train_epochs: int = 4  # of the train part; the first, which compiles, is not counted
    epochs: int = 100  # of the accuracy part


REHEARSAL = Workload(
    sizes=("n",),
    image_sizes=(32,),
    batches=(4, 2),
    threads=(1, 2),
    sides=(64, 48),
    train_side=64,
    loader_batch=4,
    train_batch=8,
    images=10,
    samples=40,
    rounds=2,
    steps=1,
    seconds=0.02,
    train_epochs=2,
    epochs=2,
)
"""Takes every step with too little work to measure speed."""


@dataclass(frozen=True)
class BenchSettings:
    """The settings of one run.

    Attributes:
        out: the folder for the JSON files.
        work: the folder for data sets and runs, which the next call reuses.
        src: a source of images; None for synthetic ones.
        tiny: Tiny-ImageNet as a tar or folder.
        limit: the time limit of each part in seconds.
        again: whether to repeat measurements that are already in the files.
        commit: recorded with each measurement.
    """

    device: torch.device
    out: Path
    work: Path
    src: str | None = None
    tiny: str | None = None
    limit: float = 540.0
    again: bool = False
    commit: str = "unknown"
    workload: Workload = field(default_factory=Workload)

    @property
    def image_size(self) -> int:
        return self.workload.image_sizes[0]
