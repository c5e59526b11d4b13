"""Threads: the number of available cores, and a map over items that works ahead in threads with bounded memory."""

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
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prefetch_map(
    items: Iterable[T], work: Callable[[T], R], threads: int, buffer_size: int
) -> Generator[tuple[T, R | ImageError]]:
    """Yields each item with ``work(item)``, or with the ImageError that it raised, in the order of ``items``.

    ``threads`` threads work on the next ``buffer_size`` items. At most this number of items is taken from ``items`` in
    advance, so memory does not grow with the number of items. Any other error is raised when its item's turn comes.
    Closing the iterator cancels the work that has not started.
    """
    pending: deque[tuple[T, Future[R]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="imgtool-image")
    try:
        for item in items:
            pending.append((item, pool.submit(work, item)))
            if len(pending) >= buffer_size:
                oldest = _result(pending.popleft())
                yield oldest
        while pending:
            last = _result(pending.popleft())
            yield last
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _result(submitted: tuple[T, Future[R]]) -> tuple[T, R | ImageError]:
    item, future = submitted
    try:
        return item, future.result()
    except ImageError as error:
        return item, error
