"""Reads images' bytes by their locators: plain files and archive members, from a local folder or an object store."""

from __future__ import annotations

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from imgtool.pipelines.archives import parquet
from imgtool.pipelines.archives import zip as zips
from imgtool.pipelines.records import MAX_BYTES, Locator
from imgtool.pipelines.storage.folders import RandomAccessFile, join, open_folder
from imgtool.wordnet.errors import ImageError, SourceError

UNPACK: dict[str, Callable[[RandomAccessFile, Locator], bytes]] = {"deflate": zips.unpack, "parquet": parquet.unpack}
"""The function that reads the bytes of a packed image, by the first word of its locator's ``packing``."""


class LocatorReader:
    """Reads the bytes of locators below ``root`` (a path or URL), and keeps the last ``MAX_OPEN`` archives open."""

    MAX_OPEN = 64
    PREFETCHED = 32
    """Images of a remote source requested in advance: a request takes longer than recoding an image."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._folder = open_folder(root)
        self._open: dict[str, RandomAccessFile] = {}

    def read(self, locator: Locator) -> bytes:
        """Returns the image's bytes.

        Raises SourceError if the file is missing or has become shorter. Raises ImageError if only this image cannot be
        read: it is too large, or its packed bytes are damaged.
        """
        data = _read(self.root, self._file(locator), locator)
        if not locator.member:
            # A plain file is read once, and keeping thousands of them open would exceed the process's limit.
            self._open.pop(locator.file).close()
        return data

    def read_many(self, locators: Iterable[Locator]) -> Iterator[bytes | ImageError]:
        """Yields the bytes of each image in order, or the ImageError that reading it raised.

        ``PREFETCHED`` images of a remote source are requested in advance.
        """
        if not self._folder.remote:
            for locator in locators:
                yield _or_error(functools.partial(self.read, locator))
            return
        with ThreadPoolExecutor(self.PREFETCHED) as pool:
            remaining = iter(locators)
            pending: collections.deque[Future[bytes]] = collections.deque()
            try:
                while True:
                    for locator in itertools.islice(remaining, self.PREFETCHED - len(pending)):
                        pending.append(pool.submit(_read, self.root, self._file(locator), locator))
                    if not pending:
                        return
                    yield _or_error(pending.popleft().result)
            finally:
                for future in pending:
                    future.cancel()

    def _file(self, locator: Locator) -> RandomAccessFile:
        if locator.file not in self._open:
            while len(self._open) >= self.MAX_OPEN:
                self._open.pop(next(iter(self._open))).close()
            try:
                self._open[locator.file] = self._folder.open(locator.file)
            except OSError as error:
                raise SourceError(f"{join(self.root, locator.file)}: {error.strerror or error}") from error
        return self._open[locator.file]

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def __enter__(self) -> LocatorReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _or_error(read: Callable[[], bytes]) -> bytes | ImageError:
    try:
        return read()
    except ImageError as error:
        return error


def _read(root: str, file: RandomAccessFile, locator: Locator) -> bytes:
    if locator.size > MAX_BYTES:
        raise ImageError(f"{locator.size} bytes are too many for an image")
    try:
        data = _bytes(file, locator)
    except OSError as error:
        raise SourceError(f"{join(root, locator.file)}: {error.strerror or error}") from error
    if len(data) < locator.size:
        raise SourceError(
            f"{join(root, str(locator))}: the file has become shorter while it was being read; "
            "leave the source unchanged while it is in use"
        )
    return data


def _bytes(file: RandomAccessFile, locator: Locator) -> bytes:
    if locator.packing:
        return UNPACK[locator.packing.partition(":")[0]](file, locator)
    return file.read(locator.offset, locator.size)
