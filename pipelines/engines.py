"""Where shard tasks run: in this process, or in worker processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from imgtool.pipelines.shard_task import ShardTask, write_shard
from imgtool.wordnet.errors import ImgtoolError

POLL_SECONDS = 0.2


class Progress(Protocol):
    """Called with the number of samples done, and of those the skipped ones, since the last call."""

    def __call__(self, samples: int, skipped: int, /) -> None: ...


def available_cpus() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_local(tasks: Sequence[ShardTask], workers: int, progress: Progress) -> None:
    """Runs the tasks on ``workers`` processes. The first error stops the rest and is raised; finished shards stay."""
    if workers == 1 or len(tasks) <= 1:
        for task in tasks:
            write_shard(task, progress)
        return
    # spawn: a forked child would inherit the threads' locks of whatever library this process has loaded
    context = multiprocessing.get_context("spawn")
    counts = context.Array("q", 2)
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, _start_worker, (counts,))
    try:
        pending: set[Future[None]] = {pool.submit(_work, task) for task in tasks}
        seen = (0, 0)
        while pending:
            finished, pending = wait(pending, POLL_SECONDS, FIRST_EXCEPTION)
            samples, skipped = counts[:]
            progress(samples - seen[0], skipped - seen[1])
            seen = (samples, skipped)
            for future in finished:
                future.result()
        pool.shutdown()
    except BrokenProcessPool:
        raise ImgtoolError(
            "a worker process died (out of memory, or killed); the finished shards are kept: run the same command again"
        ) from None
    except BaseException:
        _terminate(pool)
        raise


def _terminate(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())  # shutdown() alone would wait for the running shards
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


_count: Callable[[int, int], None]


def _start_worker(counts: Any) -> None:
    global _count
    # Ctrl-C reaches the whole process group; the parent decides what becomes of the workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()

    def count(samples: int, skipped: int) -> None:
        with counts.get_lock():
            counts[0] += samples
            counts[1] += skipped

    _count = count


def _die_with_parent() -> None:
    # A worker that outlived a killed prepare would write into the same shard as the next one's workers.
    parent = multiprocessing.parent_process()
    assert parent is not None, "workers are spawned"
    parent.join()
    os._exit(1)


def _work(task: ShardTask) -> None:
    write_shard(task, _count)
