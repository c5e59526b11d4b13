"""What a run of ``imgtool bench gpu`` is to measure: how much of everything, on which device, for how long."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass(frozen=True)
class Scale:
    """How much of everything. Each part of the default takes less than ten minutes on one H100 with 16 cores, or goes
    on where it stopped when it is called again."""

    sizes: tuple[str, ...] = ("n", "s", "m", "l", "x")
    image_sizes: tuple[int, ...] = (224, 160, 128)  # all sizes at the first, n at the others too
    batches: tuple[int, ...] = (512, 1024, 256)  # of the model part, the one that says most first
    threads: tuple[int, ...] = (1, 4, 8, 16)  # of the loaders
    sides: tuple[int, ...] = (256, 400)  # longer sides of the loaders' stored images
    train_side: int = 500  # as prepare stores them by default
    loader_batch: int = 256
    train_batch: int = 0  # 0: the recipe's
    images: int = 500  # different ones
    samples: int = 50_000  # of them, repeated, in a data set
    rounds: int = 5  # measurements that a median is of
    steps: int = 20  # of a round of the model part
    seconds: float = 3.0  # of a round of a loader
    train_epochs: int = 4  # of the train part; the first, which compiles, is not counted
    epochs: int = 100  # of the accuracy part


REHEARSAL = Scale(
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
"""Every step of it, too little of each to say anything about speed."""


@dataclass(frozen=True)
class Plan:
    """``out`` is the folder of the JSON files, ``work`` keeps data sets and runs from one call to the next. ``src`` is
    a source of images (None: drawn ones), ``tiny`` is Tiny-ImageNet's. ``limit`` is seconds a part."""

    device: torch.device
    out: Path
    work: Path
    src: str | None = None
    tiny: str | None = None
    limit: float = 540.0
    again: bool = False
    commit: str = "unknown"
    scale: Scale = field(default_factory=Scale)

    @property
    def image_size(self) -> int:
        return self.scale.image_sizes[0]
