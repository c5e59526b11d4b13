"""What the user may have meant: the words nearest to a misspelt one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np


def nearest(query: str, words: Iterable[str], count: int = 5) -> list[str]:
    """The words nearest to ``query``, if it takes few enough typing errors to come from one to the other.

    The distance is the optimal string alignment distance: a letter inserted, left out or changed and two neighbours
    swapped count one each. About one error in three letters is forgiven, three at most. Of words equally near those
    with the same letters win ("dgo": dog, not do). Should more than ``count`` be left, it is the alphabet's first.
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
    other_letters = [_other_letters(query, word) for word in best]
    return [word for word, others in zip(best, other_letters, strict=True) if others == min(other_letters)][:count]


def _other_letters(a: str, b: str) -> int:
    return sum(((Counter(a) - Counter(b)) + (Counter(b) - Counter(a))).values())


def _distances(query: bytes, letters: np.ndarray) -> np.ndarray:
    """Distance of the query to every prefix of every word: the usual recurrence, over all words at once.

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
