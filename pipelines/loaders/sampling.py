"""Which samples make up a batch and how each is cropped: functions of (seed, epoch, sample) alone.

Every backend uses them, so that order and crops do not depend on workers, threads or world size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgtool.pipelines import rng
from imgtool.pipelines.codec.transform import ValTransform

ATTEMPTS = 10
"""Random crops tried per sample before the fallback, a centred crop; as in torchvision's RandomResizedCrop."""

ORDERS = ("random", "quasi")
WINDOW = 8
"""Shards whose samples are mixed in the quasi-random order: 2 GB at the default size."""

SAMPLES, SHARDS = 1, 2
"""Third part of the random seed for the order of samples and of shards, apart from (seed, epoch) for the crops."""


@dataclass(frozen=True)
class CropAndFlip:
    """Random resized crop and horizontal flip: bounds of the area (``scale``, as a fraction of the image) and of the
    aspect ratio (``ratio``), and the probability of a flip (``hflip``)."""

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5


@dataclass(frozen=True)
class Request:
    """A batch to be made: ``samples`` (sample indices, int64 [N]), ``crops`` (int32 [N, 9], see `random_crops`) and
    ``size``, the side of the square output in pixels."""

    samples: npt.NDArray[np.int64]
    crops: npt.NDArray[np.int32]
    size: int


def epoch_order(shard: npt.NDArray[np.int32], seed: int, epoch: int, order: str) -> npt.NDArray[np.int64]:
    """Returns the order of an epoch over all ranks, sample indices int64 [N]. ``shard``, int32 [N], is each sample's.

    "stored" is 0..N-1, "random" a permutation. "quasi" takes the shards in random order and shuffles samples within
    each ``WINDOW`` shards only, so that reads are nearly sequential: for slow disks, and data sets larger than memory.
    The classes are mixed all the same, because prepare has shuffled them over the shards.
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
    """Returns the samples of one rank in global batch ``batch``: every ``world_size``-th sample, from ``rank`` on.

    The union over the ranks depends on the global batch size alone, not on the world size.
    """
    global_batch_size = batch_size * world_size
    return order[batch * global_batch_size : (batch + 1) * global_batch_size][rank::world_size]


def random_crops(
    width: npt.NDArray[np.int32],
    height: npt.NDArray[np.int32],
    size: int,
    augmentation: CropAndFlip,
    seed: int,
    epoch: int,
    samples: npt.NDArray[np.int64],
) -> npt.NDArray[np.int32]:
    """Draws random resized crops for images of the given sizes, int32 [N, 9]: x, y, w, h, resized w, h, 0, 0, flip.

    The distribution is that of torchvision's RandomResizedCrop: area uniform in ``scale``, logarithm of the aspect
    ratio uniform in ``ratio``, position uniform. If none of ``ATTEMPTS`` crops fits, the largest centred crop of an
    allowed aspect ratio is taken.
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
    augmentation: CropAndFlip | None,
    seed: int,
    epoch: int,
    samples: npt.NDArray[np.int64],
) -> npt.NDArray[np.int32]:
    """Returns random crops with an ``augmentation``, otherwise the crops of the validation transform."""
    if augmentation is None:
        return ValTransform(size).crops(width, height)
    return random_crops(width, height, size, augmentation, seed, epoch, samples)
