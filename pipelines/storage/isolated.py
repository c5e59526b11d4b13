"""Runs a reader in a child process, so that a damaged file can neither crash this process nor fill its memory."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import IO, TypeVar

from imgtool.pipelines.storage.folders import RandomAccessFile

T = TypeVar("T")
MEMORY = 1 << 30
"""Bytes that a call may allocate, besides four times the file's size."""
SECONDS = 60
"""CPU seconds that a call may take, besides one for each 10 MB of the file."""
_START = "import sys; sys.path[:] = sys.argv[1:]; from imgtool.pipelines.storage.isolated import serve; serve()"


class ChildDied(Exception):
    """The child process crashed, or exceeded its limits of memory or time."""


class Isolated:
    """A child process that runs one call after another; the next call replaces one that died.

    The child is isolated from crashes, not from this user's files. Not thread-safe.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def call(self, function: Callable[..., T], file: RandomAccessFile, *args: object) -> T:
        """Returns ``function(file, *args)``, or raises its exception. The child reads ``file`` through this process.

        ``function`` belongs to a module. Raises ChildDied, or the exception of reading ``file``.
        """
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-c", _START, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},  # others reserve a GB of addresses
            )
        assert self._child.stdin is not None and self._child.stdout is not None, "pipes"
        try:
            _send(self._child.stdin, (function, file.size, args))
            while True:
                kind, content = pickle.load(self._child.stdout)
                if kind != "read":
                    break
                _send(self._child.stdin, file.read(*content))
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            self.close()
            raise ChildDied("it crashes its reader, or takes more memory or time than its bytes allow") from None
        except BaseException:
            self.close()
            raise
        if kind == "error":
            raise content
        result: T = content
        return result

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Remote:
    """The file of the parent process, in the child."""

    def __init__(self, size: int, requests: IO[bytes], answers: IO[bytes]) -> None:
        self.size, self._requests, self._answers = size, requests, answers

    def read(self, offset: int, size: int) -> bytes:
        _send(self._requests, ("read", (offset, size)))
        data: bytes = pickle.load(self._answers)
        return data

    def close(self) -> None:
        pass


def serve() -> None:
    """Runs calls until the parent process closes the pipe: the child's main function."""
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            function, size, args = pickle.load(calls)
            _limit(size)
            try:
                answer = "result", function(_Remote(size, answers, calls), *args)
            except Exception as error:
                answer = "error", error
            _send(answers, answer)


def _limit(size: int) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(usage.ru_utime + usage.ru_stime) + SECONDS + size // 10_000_000
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    with contextlib.suppress(OSError, ValueError):  # Linux only
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY + 4 * size, resource.RLIM_INFINITY))


def _send(pipe: IO[bytes], message: object) -> None:
    pickle.dump(message, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()
