"""Threads: how many cores there are for them, and work that they do in advance, in order and within bounds."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from imgtool.wordnet.errors import ImageError

T = TypeVar("T")
R = TypeVar("R")


def available_cpus() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ahead(items: Iterable[T], work: Callable[[T], R], threads: int, most: int) -> Generator[tuple[T, R | ImageError]]:
    """Each item with its ``work(item)``, or the ImageError that this raised, in the items' order.

    ``threads`` work on the next ``most`` items, which are taken from ``items`` only then: memory does not grow with
    their number. Other errors are raised when their turn comes. Closing the iterator drops what has not begun.
    """
    waiting: deque[tuple[T, Future[R]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="imgtool-image")
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) >= most:
                oldest = _done(waiting.popleft())
                yield oldest
        while waiting:
            last = _done(waiting.popleft())
            yield last
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _done(waited: tuple[T, Future[R]]) -> tuple[T, R | ImageError]:
    item, future = waited
    try:
        return item, future.result()
    except ImageError as error:
        return item, error
