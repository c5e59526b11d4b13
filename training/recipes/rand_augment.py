"""RandAugment on batches: torchvision's function for each operation is called once, on the images that drew it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

Operation = Callable[[Tensor, float], Tensor]
NEAREST = InterpolationMode.NEAREST


def _affine(images: Tensor, x: float = 0, y: float = 0, shear_x: float = 0, shear_y: float = 0) -> Tensor:
    shear = [math.degrees(math.atan(shear_x)), math.degrees(math.atan(shear_y))]
    return F.affine(images, 0.0, [int(x), int(y)], 1.0, shear, NEAREST, center=[0, 0] if shear != [0, 0] else None)


def operations(magnitude: float, side: int) -> list[tuple[Operation, float, bool]]:
    """Returns RandAugment's 14 operations (Cubuk et al. 2020) with torchvision's parameters for images of ``side``
    pixels: (operation, its strength at ``magnitude`` (0..1), whether its sign is random)."""
    return [
        (lambda images, _: images, 0.0, False),
        (lambda images, m: _affine(images, shear_x=m), 0.3 * magnitude, True),
        (lambda images, m: _affine(images, shear_y=m), 0.3 * magnitude, True),
        (lambda images, m: _affine(images, x=m), 150 / 331 * side * magnitude, True),
        (lambda images, m: _affine(images, y=m), 150 / 331 * side * magnitude, True),
        (lambda images, m: F.rotate(images, m, NEAREST), 30 * magnitude, True),
        (lambda images, m: F.adjust_brightness(images, 1 + m), 0.9 * magnitude, True),
        (lambda images, m: F.adjust_saturation(images, 1 + m), 0.9 * magnitude, True),
        (lambda images, m: F.adjust_contrast(images, 1 + m), 0.9 * magnitude, True),
        (lambda images, m: F.adjust_sharpness(images, 1 + m), 0.9 * magnitude, True),
        (lambda images, m: F.posterize(images, int(m)), 8 - round(4 * magnitude), False),
        (lambda images, m: F.solarize(images, m), 255 * (1 - magnitude), False),
        (lambda images, _: F.autocontrast(images), 0.0, False),
        (lambda images, _: F.equalize(images), 0.0, False),
    ]


def rand_augment(images: Tensor, magnitude: float, rng: np.random.Generator) -> Tensor:
    """Applies one random operation to each image, at ``magnitude`` (0..1)."""
    table = operations(magnitude, images.shape[-1])
    chosen = rng.integers(len(table), size=len(images))
    negative = rng.random(len(images)) < 0.5
    out = images.clone(memory_format=torch.preserve_format)
    for number, (operation, strength, signed) in enumerate(table):
        for sign in (False, True) if signed else (False,):
            selected = (chosen == number) & (negative == sign) if signed else chosen == number
            if number == 0 or not selected.any():
                continue
            indices = torch.from_numpy(np.flatnonzero(selected)).to(images.device, non_blocking=True)
            out[indices] = operation(images[indices], -strength if sign else strength)
    return out
