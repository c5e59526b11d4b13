"""The distance that `nearest` uses, compared with its textbook recurrence."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from imgtool.wordnet.tables.spelling import _distances, nearest

words = st.text("abc", max_size=6)


def osa(a: str, b: str) -> int:
    """Computes the optimal string alignment distance."""
    d = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 2 : i] == b[j - 1] + b[j - 2]:
                d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return d[len(a), len(b)]


@given(words, st.lists(words, min_size=1, max_size=5))
def test_distances(query: str, others: list[str]) -> None:
    letters = np.zeros((max(map(len, others)), len(others)), np.uint8)
    for column, word in enumerate(others):
        letters[: len(word), column] = list(word.encode())
    distances = _distances(query.encode(), letters)
    assert [distances[len(word), i] for i, word in enumerate(others)] == [osa(query, word) for word in others]


@given(words, st.lists(words, max_size=8))
def test_nearest_is_among_the_nearest(query: str, others: list[str]) -> None:
    found = nearest(query, others)
    smallest = min((osa(query, word) for word in others), default=99)
    assert all(osa(query, word) == smallest for word in found)
    assert bool(found) == (bool(query) and smallest <= max(1, len(query) // 3))


def test_same_letters_win() -> None:
    assert nearest("dgo", ["do", "go", "dog", "cat"]) == ["dog"]
    assert nearest("tenhc", ["tench", "bench"]) == ["tench"]
    assert nearest("ñandú", ["nandu"]) == []
