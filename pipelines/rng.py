"""Random numbers that are bit-identical on every processor and with every release of numpy.

numpy's generators may change between releases. Its exp and log run different code on processors with AVX-512 and then
differ in the last bits. This module uses only integers and float64's +, -, * and /, which IEEE 754 defines to the last
bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LN2 = float(Decimal(2).ln())
_LN2_HIGH = math.ldexp(round(math.ldexp(_LN2, 32)), -32)  # 32 bits, so that its product with an exponent is exact
_LN2_LOW = float(Decimal(2).ln() - Decimal(_LN2_HIGH))
_TERMS = 14  # terms of exp's series for |x| ≤ ln 2 / 2: the next term is below 1e-18


def hashes(key: Sequence[int], index: npt.NDArray[np.int64], draws: int) -> npt.NDArray[np.uint64]:
    """Returns ``draws`` hashes per index: uint64 [N, draws], functions of (key, index, draw).

    ``key`` is a seed, followed by whatever distinguishes this stream of numbers from others. The generator is
    SplitMix64 (Steele, Lea and Flood 2014), used as a counter-based generator.
    """
    with np.errstate(over="ignore"):
        state = _mix(np.uint64(key[0] % 2**64) + _GOLDEN)
        for part in key[1:]:
            state = _mix(state ^ np.uint64(part))
        states = _mix(state ^ index.astype(np.uint64))
        return _mix(states[:, None] + np.arange(1, draws + 1, dtype=np.uint64) * _GOLDEN)


def _mix(z: np.uint64 | npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def uniforms(key: Sequence[int], index: npt.NDArray[np.int64], draws: int) -> npt.NDArray[np.float64]:
    """Returns ``draws`` uniform numbers in [0, 1) per index, float64 [N, draws]."""
    return (hashes(key, index, draws) >> np.uint64(11)) * 2.0**-53


def permutation(key: Sequence[int], count: int) -> npt.NDArray[np.int64]:
    """Returns the numbers 0 … count - 1 in random order, int64 [count]."""
    mask = np.uint64((1 << count.bit_length()) - 1)  # the low bits hold the number, the high bits its hash
    keys = (hashes(key, np.arange(count), 1)[:, 0] & ~mask) | np.arange(count, dtype=np.uint64)
    keys.sort()  # all keys differ, so every sorting algorithm gives the same order
    return (keys & mask).astype(np.int64)


def log(x: float) -> float:
    """Returns the natural logarithm, correctly rounded."""
    return float(Decimal(x).ln())


def exp(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns e^x elementwise, with a relative error of at most 3e-16: 2^k times the Taylor series of the remainder."""
    k = np.rint(x / _LN2)
    remainder = x - k * _LN2_HIGH - k * _LN2_LOW
    out = np.ones_like(remainder)
    for term in range(_TERMS, 0, -1):
        out = out * remainder / term + 1
    return np.ldexp(out, k.astype(np.int32))
