"""Batch augmentation is a function of the seed, uses torchvision's operations, and reports how images are mixed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from imgtool.training.recipes.augment import LEVELS, BatchAugmentation, augment, erase, mix
from imgtool.training.recipes.rand_augment import operations, rand_augment

pytestmark = pytest.mark.numeric

ALL = BatchAugmentation(randaugment=2, magnitude=9, erasing=0.25, mixup=0.2, cutmix=1.0)
NAMES = [
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast"),
    *("Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
]


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    small = torch.randint(0, 256, (32, 3, 8, 8), generator=generator, dtype=torch.uint8)
    images = v2.functional.resize(small, [48, 48], antialias=True).contiguous(memory_format=torch.channels_last)
    return images, torch.arange(32)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_it_is_a_function_of_seed_epoch_and_step(batch):
    first, mixed = augment(*batch, ALL, 0, 1, 2)
    again, mixed_again = augment(*batch, ALL, 0, 1, 2)
    assert torch.equal(first, again)
    assert torch.equal(mixed.lam, mixed_again.lam)
    for other in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        assert not torch.equal(first, augment(*batch, ALL, *other)[0])


def test_shape_type_and_layout_are_kept(batch):
    images, labels = batch
    before = images.clone()
    for augmentation in (
        ALL,
        BatchAugmentation(randaugment=1),
        BatchAugmentation(erasing=1),
        BatchAugmentation(mixup=1),
        BatchAugmentation(cutmix=1),
    ):
        out, mixed = augment(images, labels, augmentation, 0, 0, 0)
        assert out.shape == images.shape
        assert out.dtype == torch.uint8
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert (mixed is None) == (not augmentation.mixup and not augmentation.cutmix)
    assert torch.equal(images, before), "the loader's batch is unchanged"
    assert not BatchAugmentation()


@pytest.mark.parametrize("magnitude", [0, 9, 15, 30])
def test_the_operations_are_torchvisions(batch, magnitude):
    """Compares each operation with torchvision's RandAugment of the same name, magnitude and sign."""
    images = batch[0][:4]
    reference = v2.RandAugment(magnitude=magnitude, num_magnitude_bins=31)
    space = reference._AUGMENTATION_SPACE
    assert list(space) == NAMES
    for name, (operation, strength, signed) in zip(NAMES, operations(magnitude / LEVELS, 48), strict=True):
        magnitudes, theirs_signed = space[name]
        values = magnitudes(31, 48, 48)
        theirs = float(values[magnitude]) if values is not None else 0.0
        assert signed == theirs_signed, name
        scale = 255 if name == "Solarize" else 1
        assert strength / scale == pytest.approx(theirs, abs=1e-6), name
        for sign in (1, -1) if signed else (1,):
            want = reference._apply_image_or_video_transform(
                images, name, sign * strength / scale, interpolation=v2.InterpolationMode.NEAREST, fill={}
            )
            assert torch.equal(operation(images, sign * strength), want), name


def test_each_image_draws_its_own_operation(batch):
    images = batch[0][:1].expand(280, -1, -1, -1).clone()
    out = rand_augment(images, 0.5, rng())
    kinds = {image.numpy().tobytes() for image in out}
    assert len(kinds) > 18, "14 operations, 9 of them with two signs"
    unchanged = (out == images).flatten(1).all(1).float().mean()
    assert 0.02 < unchanged < 0.3


def test_erasing(batch):
    images = torch.full((400, 3, 64, 48), 7, dtype=torch.uint8)
    black = (erase(images, 0.25, rng())[:, 0] == 0).flatten(1).float().mean(1)
    assert 0.18 < (black > 0).float().mean() < 0.32
    erased = black[black > 0]
    assert erased.min() > 0.015 and erased.max() < 0.35
    rectangle = erase(images[:50], 1.0, rng())[:, 0] == 0
    for image in rectangle:
        rows, columns = image.any(1), image.any(0)
        assert image.sum() == rows.sum() * columns.sum(), "one rectangle"


def test_lam_is_the_share_of_the_own_image(batch):
    labels = batch[1]
    images = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    images[1] = 200
    for seed in range(20):
        out, mixed = mix(images, labels[:2], 0.4, 0.0, rng(seed))
        assert mixed.other.tolist() == [1, 0]
        assert out[1].float().mean() == pytest.approx(200 * float(mixed.lam), abs=0.5)
        out, mixed = mix(images, labels[:2], 0.0, 1.0, rng(seed))
        assert out[1].float().mean() == pytest.approx(200 * float(mixed.lam), abs=1e-3)
        assert set(out.unique().tolist()) <= {0, 200}
    cuts = [set(mix(images, labels[:2], 5.0, 5.0, rng(seed))[0].unique().tolist()) == {0, 200} for seed in range(60)]
    assert 15 < sum(cuts) < 45, "each of the two in about half of the steps"
