"""Which samples make up a batch and how each is cropped: functions of (seed, epoch, sample) and of nothing else.

Every backend uses these, so that order and crops do not depend on workers, threads or world size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgtool.pipelines import rng
from imgtool.pipelines.codec.transform import ValTransform

ATTEMPTS = 10
"""As torchvision's RandomResizedCrop: so many tries to fit a crop before it falls back to the centre."""

ORDERS = ("random", "quasi")
WINDOW = 8
"""Shards whose samples are mixed in the quasi-random order: 2 GB at the default size."""

SAMPLES, SHARDS = 1, 2
"""What an epoch's order is drawn for, apart from its crops."""


@dataclass(frozen=True)
class Augmentation:
    """RandomResizedCrop and horizontal flip: area ``scale`` and aspect ``ratio`` bounds, flip probability ``hflip``."""

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5


@dataclass(frozen=True)
class Request:
    """A batch to be made: sample indices, int64 [N], their crops, int32 [N, 9] as the codec takes them, and the side
    of the square output in pixels."""

    samples: npt.NDArray[np.int64]
    crops: npt.NDArray[np.int32]
    size: int


def epoch_order(shard: npt.NDArray[np.int32], seed: int, epoch: int, order: str) -> npt.NDArray[np.int64]:
    """The order of an epoch over all ranks, int64 [N]; ``shard``, int32 [N], is which one each sample lies in.

    "stored" is 0..N-1, "random" a permutation of all. "quasi" reads shard after shard: these in random order, and
    within each ``WINDOW`` of them their samples, so that a disk that must not seek, or a file larger than memory, is
    read nearly in sequence. prepare has shuffled classes over the shards already.
    """
    if order == "stored":
        return np.arange(len(shard), dtype=np.int64)
    shuffled = rng.permutation((seed, epoch, SAMPLES), len(shard))
    if order == "random":
        return shuffled
    shards = np.unique(shard)
    window = np.empty(int(shard.max(initial=0)) + 1, np.int64)
    window[shards[rng.permutation((seed, epoch, SHARDS), len(shards))]] = np.arange(len(shards)) // WINDOW
    return shuffled[np.argsort(window[shard[shuffled]], kind="stable")]


def batch_of(
    order: npt.NDArray[np.int64], batch: int, batch_size: int, rank: int, world_size: int
) -> npt.NDArray[np.int64]:
    """The samples of one rank in global batch ``batch``: every ``world_size``-th of it, so the union is independent
    of the world size as long as the global batch is."""
    wide = batch_size * world_size
    return order[batch * wide : (batch + 1) * wide][rank::world_size]


def random_crops(
    width: npt.NDArray[np.int32],
    height: npt.NDArray[np.int32],
    size: int,
    augmentation: Augmentation,
    seed: int,
    epoch: int,
    samples: npt.NDArray[np.int64],
) -> npt.NDArray[np.int32]:
    """Random-resized-crop geometry for images of the given sizes, int32 [N, 9]: x, y, w, h, resized w, h, 0, 0, flip.

    The distribution is that of torchvision's RandomResizedCrop: area uniform in ``scale``, log aspect uniform in
    ``ratio``, position uniform; after ten crops that do not fit, the largest centred one of allowed aspect.
    """
    n = len(samples)
    u = rng.uniforms((seed, epoch), samples, 2 * ATTEMPTS + 3)
    low, high = augmentation.scale
    area = (width.astype(np.float64) * height)[:, None] * (low + (high - low) * u[:, :ATTEMPTS])
    log_low, log_high = rng.log(augmentation.ratio[0]), rng.log(augmentation.ratio[1])
    aspect = rng.exp(log_low + (log_high - log_low) * u[:, ATTEMPTS : 2 * ATTEMPTS])
    w = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    h = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (w > 0) & (w <= width[:, None]) & (h > 0) & (h <= height[:, None])
    first = fits.argmax(1)
    row = np.arange(n)
    w, h = w[row, first], h[row, first]
    x = np.floor(u[:, -3] * (width - w + 1)).astype(np.int64)
    y = np.floor(u[:, -2] * (height - h + 1)).astype(np.int64)

    none = ~fits.any(1)
    if none.any():
        wide, tall = width[none].astype(np.int64), height[none].astype(np.int64)
        w[none] = np.minimum(wide, np.rint(tall * augmentation.ratio[1]).astype(np.int64))
        h[none] = np.minimum(tall, np.rint(wide / augmentation.ratio[0]).astype(np.int64))
        x[none], y[none] = (wide - w[none]) // 2, (tall - h[none]) // 2
    side, zero = np.full(n, size), np.zeros(n, np.int64)
    flip = u[:, -1] < augmentation.hflip
    return np.stack([x, y, w, h, side, side, zero, zero, flip], 1).astype(np.int32)


def crops_for(
    width: npt.NDArray[np.int32],
    height: npt.NDArray[np.int32],
    size: int,
    augmentation: Augmentation | None,
    seed: int,
    epoch: int,
    samples: npt.NDArray[np.int64],
) -> npt.NDArray[np.int32]:
    """Random crops under an augmentation, else the validation transform's."""
    if augmentation is None:
        return ValTransform(size).crops(width, height)
    return random_crops(width, height, size, augmentation, seed, epoch, samples)
