"""Where shard tasks run: in this process, in worker processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Any

from imgtool.pipelines.prepare.shard_task import OnProgress, Shard, ShardTask, Skip, write_shard
from imgtool.pipelines.threads import available_cpus
from imgtool.wordnet.errors import ImgtoolError, InputError, first_line

POLL_SECONDS = 0.2
RETRIES = 20
"""How often Ray restarts a task on another node when the node that it ran on is lost."""

ENGINES = ("local", "ray")
SEMAPHORES = "/dev/shm"
"""Where Linux keeps the semaphores of multiprocessing."""

MakeTask = Callable[[Shard], ShardTask]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Engine:
    """Where shard tasks run. ``kind``: "local" or "ray".

    ``workers``: the number of tasks at a time (default: this machine's cores, or the cluster's CPUs). ``address``: the
    Ray cluster's; "auto" is the cluster that this machine belongs to, the default starts one on this machine.
    """

    kind: str = "local"
    workers: int | None = None
    address: str | None = None

    def run(self, shards: Sequence[Shard], make_task: MakeTask, report: OnProgress, say: Say) -> None:
        """Makes the shards. The first error stops the remaining ones and is raised; finished shards are kept.

        ``say`` is called with a line for the user when the shards are made in another way than wanted.
        """
        if not shards:
            return
        if self.kind == "ray":
            run_ray(shards, make_task, report, self.workers, self.address)
        elif self.kind == "local":
            run_local(shards, make_task, report, self.workers or available_cpus(), say)
        else:
            raise InputError(f"unknown engine {self.kind!r}; choose one of {', '.join(ENGINES)}")


def run_local(shards: Sequence[Shard], make_task: MakeTask, report: OnProgress, workers: int, say: Say) -> None:
    """Runs on ``workers`` processes of this machine. This process is one of them and works while the others start.

    Runs in this process alone where others cannot be started, as in a container without /dev/shm.
    """
    remaining = iter(shards)
    others = min(workers, len(shards)) - 1
    pool, reports = _start_pool(others, say) if others else (None, None)
    if pool is None:
        for shard in remaining:
            write_shard(make_task(shard), report)
        return
    running: set[Future[None]] = set()

    def hand_out() -> None:
        # A task holds its records in memory: make only as many as the workers need next.
        nonlocal running
        finished, running = wait(running, 0, FIRST_COMPLETED)
        for future in finished:
            future.result()
        for shard in islice(remaining, 2 * others - len(running)):
            running.add(_submit(pool, make_task(shard)))
        _forward_reports(reports, report)

    def report_all(samples: int, skips: list[Skip]) -> None:
        report(samples, skips)
        hand_out()

    try:
        hand_out()
        for shard in remaining:
            batched = _BatchedReports(report_all)
            write_shard(make_task(shard), batched)
            batched.flush()
        while running:
            wait(running, POLL_SECONDS, FIRST_COMPLETED)
            hand_out()
        pool.shutdown()
        _forward_reports(reports, report)
    except BrokenProcessPool:
        raise ImgtoolError(
            "a worker process died (killed, or out of memory); the finished shards are kept: run the same command again"
        ) from None
    except BaseException:
        _terminate(pool)
        raise


def _start_pool(others: int, say: Say) -> tuple[ProcessPoolExecutor | None, Any]:
    """Returns a pool of processes and the queue of their reports; None for both where the system does not allow it."""
    # spawn: a forked child would inherit locks held by threads of the libraries that this process has loaded
    context = multiprocessing.get_context("spawn")
    try:
        reports = context.Queue()  # its locks are semaphores, which are files in /dev/shm
        return ProcessPoolExecutor(others, context, _start_worker, (reports,)), reports
    except (OSError, ImportError) as error:  # ImportError: this system has no semaphores
        say(
            f"runs in one process, because others need semaphores: {SEMAPHORES}: "
            f"{(isinstance(error, OSError) and error.strerror) or error}; make it a writable tmpfs with free space to "
            "use more cores"
        )
        return None, None


def _submit(pool: ProcessPoolExecutor, task: ShardTask) -> Future[None]:
    try:
        return pool.submit(_work, task)
    except OSError as error:
        raise ImgtoolError(
            f"cannot start a worker process: {error.strerror or error}; the finished shards are kept: run the same "
            "command again with --workers 1"
        ) from error


def _forward_reports(reports: Any, report: OnProgress) -> None:
    samples, skips = 0, []
    while True:
        try:
            more, skipped = reports.get_nowait()
        except queue.Empty:
            break
        samples += more
        skips += skipped
    report(samples, skips)


def _terminate(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())  # shutdown() alone would wait for the running shards
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


_reports: Any


def _start_worker(reports: Any) -> None:
    global _reports
    # Ctrl-C signals the whole process group; the parent terminates the workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _reports = reports


def _exit_with_parent() -> None:
    # A worker that outlives a killed prepare would write the same shard as a worker of the next prepare.
    parent = multiprocessing.parent_process()
    assert parent is not None, "workers are spawned"
    parent.join()
    os._exit(1)


def _work(task: ShardTask) -> None:
    batched = _BatchedReports(lambda samples, skips: _reports.put((samples, skips)))
    write_shard(task, batched)
    batched.flush()


class _BatchedReports:
    """Forwards reports in batches: one message per sample would cost more than reading the sample."""

    EVERY = 32

    def __init__(self, report: OnProgress) -> None:
        self._report = report
        self._samples = 0
        self._skips: list[Skip] = []

    def __call__(self, samples: int, skips: list[Skip]) -> None:
        self._samples += samples
        self._skips += skips
        if self._samples >= self.EVERY:
            self.flush()

    def flush(self) -> None:
        self._report(self._samples, self._skips)
        self._samples, self._skips = 0, []


def run_ray(
    shards: Sequence[Shard], make_task: MakeTask, report: OnProgress, workers: int | None, address: str | None
) -> None:
    """Runs on a Ray cluster. Ray restarts a task on another node when its node is lost; the shard has the same bytes.

    Every node needs imgtool, and the source and the output under the same path or URL.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray needs Ray: pip install 'imgtool[ray]'") from None

    started_here = not ray.is_initialized()
    if started_here:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ImgtoolError(f"cannot connect to the Ray cluster at {address}: {error}") from error

    @ray.remote(num_cpus=1, max_retries=RETRIES)
    def work(task: ShardTask) -> list[Skip]:
        skips: list[Skip] = []
        write_shard(task, lambda samples, more: skips.extend(more))
        return skips

    concurrent = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    remaining = iter(shards)
    running: dict[Any, Shard] = {}

    def start(count: int) -> None:
        # A task holds its records in memory: queue just enough tasks that no CPU waits for the next one.
        for shard in islice(remaining, count):
            running[work.remote(make_task(shard))] = shard

    try:
        start(concurrent if workers else 2 * concurrent)
        while running:
            finished, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            for reference in finished:
                shard = running.pop(reference)
                report(shard.end - shard.begin, ray.get(reference))
                start(1)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else ImgtoolError(str(error)) from error
    except ray.exceptions.RayError as error:
        raise ImgtoolError(
            f"Ray could not finish a task ({first_line(error)}); the finished shards are kept: run the same "
            "command again"
        ) from error
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if started_here:
            ray.shutdown()
