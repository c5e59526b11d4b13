"""`prefetch_map` keeps order and bounds, and passes on errors."""

from __future__ import annotations

import threading

import pytest

from imgtool.pipelines.threads import prefetch_map
from imgtool.wordnet.errors import ImageError


def test_order_and_buffer_size_are_kept() -> None:
    taken, done = [], []
    threads = set()
    finished = [threading.Event() for _ in range(50)]

    def items():
        for i in range(50):
            taken.append(i)
            yield i

    def work(i: int) -> int:
        threads.add(threading.get_ident())
        if i % 3 == 0:  # every third item finishes after its successor
            assert finished[i + 1].wait(100)
        finished[i].set()
        if i % 10 == 7:
            raise ImageError(f"no {i}")
        return i * i

    for item, result in prefetch_map(items(), work, threads=3, buffer_size=6):
        assert len(taken) - len(done) <= 6
        done.append(item)
        assert isinstance(result, ImageError) if item % 10 == 7 else result == item * item
    assert done == list(range(50))
    assert 1 < len(threads) <= 3


def test_other_errors_are_raised_and_closing_stops_the_work() -> None:
    begun = []

    def work(i: int) -> int:
        begun.append(i)
        if i == 3:
            raise ValueError("three")
        return i

    results = prefetch_map(range(100), work, threads=1, buffer_size=4)
    assert [next(results) for _ in range(3)] == [(0, 0), (1, 1), (2, 2)]
    with pytest.raises(ValueError, match="three"):
        next(results)
    early = prefetch_map(range(100), work, threads=1, buffer_size=4)
    next(early)
    early.close()
    assert len(begun) < 20
