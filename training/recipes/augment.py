"""Augmentation of batches on their device: RandAugment, random erasing, mixup, cutmix.

Crops and flips are done by the loader. The random choices for each sample are drawn on the host, from (seed, epoch,
step) alone, so that nothing waits for the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from imgtool.pipelines.rng import exp, log

LEVELS = 30
"""The largest magnitude on RandAugment's scale."""
ERASED_AREA, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)  # as in torchvision's RandomErasing
ERASE_ATTEMPTS = 10


@dataclass(frozen=True)
class BatchAugmentation:
    """The augmentation settings of a recipe.

    ``randaugment``: operations per image (0: none), at ``magnitude``, 0 to 30. ``erasing``: probability that a
    rectangle of an image is set to black. ``mixup``, ``cutmix``: alpha of their Beta distribution (0: off); with both,
    each step uses one of them at random.
    """

    randaugment: int = 0
    magnitude: int = 9
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.randaugment or self.erasing or self.mixup or self.cutmix)


class Mixed(NamedTuple):
    """How a batch is mixed: each image is ``lam`` (0-d, float32) of its own class and 1 − ``lam`` of the class in
    ``other`` (int64 [N])."""

    other: Tensor
    lam: Tensor


def augment(
    images: Tensor,
    labels: Tensor,
    augmentation: BatchAugmentation,
    seed: int,
    epoch: int,
    step: int,
    rank: int = 0,
) -> tuple[Tensor, Mixed | None]:
    """Augments images uint8 [N, 3, H, W] with labels int64 [N]; returns images of that shape, and how they are mixed.

    The loss of a mixed batch is lam · loss(labels) + (1 − lam) · loss(other). Each ``rank`` draws other random numbers.
    """
    rng = np.random.default_rng([seed, epoch, step, rank] if rank else [seed, epoch, step])
    if augmentation.randaugment:
        from imgtool.training.recipes.rand_augment import rand_augment  # torchvision takes a second to import

        for _ in range(augmentation.randaugment):
            images = rand_augment(images, augmentation.magnitude / LEVELS, rng)
    if augmentation.erasing:
        images = erase(images, augmentation.erasing, rng)
    if augmentation.mixup or augmentation.cutmix:
        return mix(images, labels, augmentation.mixup, augmentation.cutmix, rng)
    return images, None


def erase(images: Tensor, probability: float, rng: np.random.Generator) -> Tensor:
    """Sets a rectangle to black in some of the images, with the size and place of torchvision's RandomErasing."""
    n, _, height, width = images.shape
    area = height * width * rng.uniform(*ERASED_AREA, (n, ERASE_ATTEMPTS))
    narrow, broad = ERASED_RATIO
    aspect = exp(rng.uniform(log(narrow), log(broad), (n, ERASE_ATTEMPTS)))
    tall, wide = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (tall < height) & (wide < width)
    first, row = fits.argmax(1), np.arange(n)
    h = np.where(fits.any(1) & (rng.random(n) < probability), tall[row, first], 0)
    w = wide[row, first]
    y, x = np.floor(rng.random(n) * (height - h + 1)), np.floor(rng.random(n) * (width - w + 1))
    box = torch.from_numpy(np.stack([y, y + h, x, x + w]).astype(np.int32)).to(images.device, non_blocking=True)
    top, bottom, left, right = box.view(4, n, 1, 1, 1)
    ys = torch.arange(height, device=images.device).view(1, 1, height, 1)
    xs = torch.arange(width, device=images.device).view(1, 1, 1, width)
    inside = (ys >= top) & (ys < bottom) & (xs >= left) & (xs < right)
    return images.clone(memory_format=torch.preserve_format).masked_fill_(inside, 0)


def mix(images: Tensor, labels: Tensor, mixup: float, cutmix: float, rng: np.random.Generator) -> tuple[Tensor, Mixed]:
    """Mixes each image with the previous one in the batch, by mixup (Zhang et al. 2018) or cutmix (Yun et al. 2019)."""
    cut = bool(cutmix) and (not mixup or rng.random() < 0.5)
    alpha = cutmix if cut else mixup
    lam = rng.beta(alpha, alpha)
    other, other_labels = images.roll(1, 0), labels.roll(1, 0)
    if cut:
        height, width = images.shape[-2:]
        h, w = math.sqrt(1 - lam) * height, math.sqrt(1 - lam) * width
        y, x = rng.integers(height), rng.integers(width)
        top, bottom = max(round(y - h / 2), 0), min(round(y + h / 2), height)
        left, right = max(round(x - w / 2), 0), min(round(x + w / 2), width)
        out = images.clone(memory_format=torch.preserve_format)
        out[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
        lam = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        out = torch.lerp(other.float(), images.float(), lam).round_().to(torch.uint8)
        out = out.contiguous(memory_format=torch.channels_last)
    return out, Mixed(other_labels, torch.full((), lam, device=images.device))
