"""Suggestions for a misspelt word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np


def nearest(query: str, words: Iterable[str], count: int = 5) -> list[str]:
    """Returns the words nearest to `query`; none if all of them are too far away.

    The distance is the optimal string alignment distance: inserting, deleting or changing a letter, or swapping two
    neighbours, counts 1. It may be up to a third of the query's length, at least 1 and at most 3. Among equally near
    words, those with the same letters are preferred ("dgo": dog, not do), then the first `count` in alphabetical order.
    """
    if not query:
        return []
    allowed = min(3, max(1, len(query) // 3))
    near = sorted({word for word in words if abs(len(word) - len(query)) <= allowed and word.isascii()})
    if not near:
        return []
    letters = np.array(near, dtype=np.bytes_).view(np.uint8).reshape(len(near), -1).T  # [position, word]
    distance = _distances(query.encode("ascii", "replace"), letters)[[len(word) for word in near], np.arange(len(near))]
    if distance.min() > allowed:
        return []
    best = [near[i] for i in np.flatnonzero(distance == distance.min())]
    differences = [_letter_difference(query, word) for word in best]
    return [word for word, difference in zip(best, differences, strict=True) if difference == min(differences)][:count]


def _letter_difference(a: str, b: str) -> int:
    return sum(((Counter(a) - Counter(b)) + (Counter(b) - Counter(a))).values())


def _distances(query: bytes, letters: np.ndarray) -> np.ndarray:
    """Computes the distance of the query to every prefix of every word, by the usual recurrence, vectorised over words.

    Args:
        letters: uint8 [length, words].

    Returns:
        int16 [length + 1, words].
    """
    length, words = letters.shape
    previous = np.zeros((length + 1, words), np.int16)
    current = np.repeat(np.arange(length + 1, dtype=np.int16)[:, None], words, axis=1)
    for i, letter in enumerate(query):
        before, previous, current = previous, current, np.empty_like(current)
        current[0] = i + 1
        for j in range(length):
            current[j + 1] = np.minimum(previous[j + 1], current[j]) + 1
            np.minimum(current[j + 1], previous[j] + (letters[j] != letter), out=current[j + 1])
            if i and j:
                swapped = (letters[j - 1] == letter) & (letters[j] == query[i - 1])
                np.minimum(current[j + 1], before[j - 1] + 1, out=current[j + 1], where=swapped)
    return current
