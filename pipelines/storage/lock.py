"""A lock that lets only one prepare at a time write into an output folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from imgtool.pipelines.storage.folders import Folder, write_text
from imgtool.wordnet.errors import DatasetError, ImgtoolError

LOCK = ".lock"
HEARTBEAT_SECONDS = 5.0
"""How often the holder of a remote lock rewrites it. A lock that is not rewritten for twice as long is abandoned."""


@contextlib.contextmanager
def locked(folder: Folder) -> Iterator[None]:
    """Locks the folder against a second prepare. Raises DatasetError if another prepare holds the lock.

    On a local disk this is a kernel lock, which is released when the process ends, however it ends. A remote store has
    no such lock: its holder rewrites a lock file every few seconds, and a lock file that no longer changes is taken
    over.
    """
    with _remote_lock(folder) if folder.remote else _local_lock(Path(folder.url)):
        yield


@contextlib.contextmanager
def _local_lock(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder removes the file when it is done, and a lock on a removed file excludes nobody.
            os.stat(out / LOCK)
        except (BlockingIOError, FileNotFoundError):
            raise DatasetError(_held(str(out))) from None
        try:
            yield
        finally:
            (out / LOCK).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _remote_lock(folder: Folder) -> Iterator[None]:
    if (before := _lock_content(folder)) is not None:
        time.sleep(2 * HEARTBEAT_SECONDS)
        if _lock_content(folder) not in (before, None):
            raise DatasetError(_held(folder.url))
    ours = uuid.uuid4().hex
    write_text(folder, LOCK, f"{ours} 0")
    stop = threading.Event()

    def heartbeat() -> None:
        count = 0
        while not stop.wait(HEARTBEAT_SECONDS):
            count += 1
            # If the store is unreachable, the prepare itself reports it.
            with contextlib.suppress(OSError, ImgtoolError):
                write_text(folder, LOCK, f"{ours} {count}")

    thread = threading.Thread(target=heartbeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        folder.remove(LOCK)


def _held(out: str) -> str:
    return f"{out}: another imgtool prepare is writing here; wait until it ends, or choose another --out"


def _lock_content(folder: Folder) -> bytes | None:
    try:
        return folder.read(LOCK)
    except FileNotFoundError:
        return None
