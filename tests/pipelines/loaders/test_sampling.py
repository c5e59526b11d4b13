"""Order and crops are functions of (seed, epoch, sample); crops have the distribution of torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool.pipelines.loaders.sampling import CropAndFlip, batch_of, epoch_order, random_crops
from imgtool.pipelines.rng import uniforms

pytestmark = pytest.mark.numeric


def crops(width, height, n=4000, size=64, augmentation=None, seed=0, epoch=0):
    samples = np.arange(n)
    shape = np.full(n, width, np.int32), np.full(n, height, np.int32)
    return random_crops(*shape, size, augmentation or CropAndFlip(), seed, epoch, samples)


def test_uniforms_are_uniform_and_independent():
    u = uniforms((3, 5), np.arange(20_000), 8)
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in u.T])
    chi2 = ((counts - 1000) ** 2 / 1000).sum(1)
    assert (chi2 < 45).all()  # 19 degrees of freedom: 45 is the 99.9 % point
    assert np.abs(np.corrcoef(u.T) - np.eye(8)).max() < 0.03


def test_each_of_seed_epoch_sample_and_draw_matters():
    base = uniforms((1, 1), np.arange(100), 4)
    assert np.array_equal(base, uniforms((1, 1), np.arange(100), 4))
    for other in (uniforms((2, 1), np.arange(100), 4), uniforms((1, 2), np.arange(100), 4)):
        assert not np.intersect1d(base, other).size
    assert len(np.unique(base)) == base.size
    assert np.array_equal(uniforms((1, 1), np.array([7, 3]), 4), base[[7, 3]])


@settings(max_examples=60)
@given(st.integers(1, 600), st.integers(1, 600), st.floats(0.01, 1), st.integers(0, 2**63))
def test_crops_are_inside_the_image(width, height, low, seed):
    found = crops(width, height, n=50, augmentation=CropAndFlip((low, 1.0)), seed=seed)
    x, y, w, h = found[:, :4].T
    assert (w >= 1).all()
    assert (h >= 1).all()
    assert (x >= 0).all()
    assert (y >= 0).all()
    assert (x + w <= width).all()
    assert (y + h <= height).all()
    assert (found[:, 4:6] == 64).all()
    assert set(found[:, 8]) <= {0, 1}


@pytest.mark.parametrize(("width", "height"), [(500, 375), (200, 400), (640, 90)])
def test_crops_have_torchvisions_distribution(width, height):
    import torch
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    reference = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])[
        :, [1, 0, 3, 2]
    ]  # y, x, h, w
    ours = crops(width, height)[:, :4]
    for quantity in (lambda c: c[:, 2] * c[:, 3], lambda c: c[:, 2] / c[:, 3], lambda c: c[:, 0], lambda c: c[:, 1]):
        a, b = np.sort(quantity(ours)), np.sort(quantity(reference))
        # Kolmogorov-Smirnov over the values of both: 0.0436 is the 99.9 % point for 4,000 against 4,000
        grid = np.union1d(a, b)
        distance = np.abs(np.searchsorted(a, grid, "right") - np.searchsorted(b, grid, "right")).max() / 4000
        assert distance < 0.0436


def test_half_of_the_images_are_flipped():
    assert abs(crops(300, 200)[:, 8].mean() - 0.5) < 0.04
    assert not crops(300, 200, augmentation=CropAndFlip(hflip=0.0))[:, 8].any()


def test_order_and_crops_are_independent():
    order = epoch_order(np.zeros(4000, np.int32), 0, 0, "random")
    found = crops(500, 375)[order]
    place = np.arange(4000)
    for quantity in (found[:, 2] * found[:, 3], found[:, 0], found[:, 8]):
        assert abs(np.corrcoef(place, quantity)[0, 1]) < 0.055  # 3.5 standard errors if independent


def test_order_depends_on_seed_and_epoch():
    a = epoch_order(np.zeros(1000, np.int32), 0, 0, "random")
    assert sorted(a) == list(range(1000))
    assert np.array_equal(a, epoch_order(np.zeros(1000, np.int32), 0, 0, "random"))
    for other in ((0, 1), (1, 0)):
        assert not np.array_equal(a, epoch_order(np.zeros(1000, np.int32), *other, "random"))
    assert np.array_equal(epoch_order(np.zeros(5, np.int32), 0, 0, "stored"), np.arange(5))


@settings(max_examples=60)
@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 5))
def test_ranks_share_each_global_batch(samples, batch_size, world_size):
    order = epoch_order(np.zeros(samples, np.int32), 0, 0, "random")
    for batch in range(-(-samples // (batch_size * world_size))):
        parts = [batch_of(order, batch, batch_size, rank, world_size) for rank in range(world_size)]
        whole = batch_of(order, batch, batch_size * world_size, 0, 1)
        assert sorted(np.concatenate(parts)) == sorted(whole)
        assert max(map(len, parts)) <= batch_size
