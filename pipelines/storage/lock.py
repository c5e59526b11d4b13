"""One prepare at a time into an output folder."""

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
BEAT_SECONDS = 5.0
"""How often the holder of a remote lock rewrites it; one that stays the same for twice as long is nobody's."""


@contextlib.contextmanager
def locked(folder: Folder) -> Iterator[None]:
    """Holds the folder against a second prepare. Raises DatasetError if it is held by another.

    On a local disk by the kernel, which lets go when this process ends, however it ends. A remote store has no such
    lock: there the holder's mark changes every few seconds, and one that has stopped changing is taken over.
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
            # The holder removes the file when it is done: a lock on a removed file locks nobody out.
            os.stat(out / LOCK)
        except (BlockingIOError, FileNotFoundError):
            raise DatasetError(f"{out}: another imgtool prepare is writing here") from None
        try:
            yield
        finally:
            (out / LOCK).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _remote_lock(folder: Folder) -> Iterator[None]:
    if (before := _mark(folder)) is not None:
        time.sleep(2 * BEAT_SECONDS)
        if _mark(folder) not in (before, None):
            raise DatasetError(f"{folder.url}: another imgtool prepare is writing here")
    ours = uuid.uuid4().hex
    write_text(folder, LOCK, f"{ours} 0")
    stop = threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(BEAT_SECONDS):
            count += 1
            # A store out of reach for a moment is the work's own trouble, which will say so.
            with contextlib.suppress(OSError, ImgtoolError):
                write_text(folder, LOCK, f"{ours} {count}")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        folder.remove(LOCK)


def _mark(folder: Folder) -> bytes | None:
    try:
        return folder.read(LOCK)
    except FileNotFoundError:
        return None
