"""Random numbers that are the same on every processor and with every release of numpy."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool.pipelines.loaders.sampling import CropAndFlip, epoch_order, random_crops
from imgtool.pipelines.rng import exp, log, permutation, uniforms

pytestmark = pytest.mark.numeric


def test_splitmix64_as_published():
    """The generator's first outputs for the seed 1234567, as printed by its authors' C code."""
    from imgtool.pipelines import rng

    with np.errstate(over="ignore"):
        states = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * rng._GOLDEN
    assert rng._mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.floats(-700, 700))
def test_exp_is_accurate(x):
    """exp is within 4e-16 of libm, and for small arguments within 3e-16 of the series in rational numbers."""
    found = float(exp(np.array([x]))[0])
    assert found == pytest.approx(math.exp(x), rel=4e-16)
    if abs(x) < 1:
        exact, term = Fraction(0), Fraction(1)
        for n in range(1, 30):
            exact, term = exact + term, term * Fraction(x) / n
        assert abs(Fraction(found) - exact) <= exact * Fraction(3, 10**16)


def test_log_is_accurate():
    for x in (3 / 4, 4 / 3, 1e-300, 1.0, 5e5):
        assert log(x) == pytest.approx(math.log(x), rel=2e-16)


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_permutations(count):
    found = permutation((1, 2), count)
    assert found.dtype == np.int64 and sorted(found.tolist()) == list(range(count))
    assert np.array_equal(found, permutation((1, 2), count))
    if count > 2:
        assert not np.array_equal(found, permutation((1, 3), count))


def test_each_position_of_a_permutation_is_equally_likely():
    permutations = np.stack([permutation((seed,), 8) for seed in range(8000)])
    counts = np.stack([np.bincount(column, minlength=8) for column in permutations.T])
    assert ((counts - 1000) ** 2 / 1000).sum() < 86  # the 99.9 % point of chi-squared with 49 degrees of freedom


def test_the_bits_that_data_sets_and_runs_depend_on():
    """If this fails, the same command produces other shards and other batches than before."""
    samples = np.arange(5000)
    width, height = 100 + samples % 400, 90 + samples * 7 % 500
    crops = random_crops(width, height, 224, CropAndFlip(), 3, 5, samples)
    order = epoch_order((samples // 50).astype(np.int32), 3, 5, "quasi")
    found = (permutation((3, 1), 5000), order, uniforms((3, 5), samples, 4), exp(np.linspace(-1, 1, 5000)), crops)
    digest = hashlib.sha256(
        b"".join(np.ascontiguousarray(part).astype(part.dtype.newbyteorder("<")).tobytes() for part in found)
    )
    assert digest.hexdigest()[:16] == "23e271bb4d514df7"
