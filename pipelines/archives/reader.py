"""The bytes of images by their locators, whatever they are packed in, from a folder or an object store."""

from __future__ import annotations

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from imgtool.pipelines.archives import parquet
from imgtool.pipelines.archives import zip as zips
from imgtool.pipelines.records import MAX_BYTES, Locator
from imgtool.pipelines.storage.folders import RandomFile, join, open_folder
from imgtool.wordnet.errors import ImageError, SourceError

UNPACK: dict[str, Callable[[RandomFile, Locator], bytes]] = {"deflate": zips.unpack, "parquet": parquet.unpack}
"""By the first word of a locator's ``packing``: what reads such bytes."""


class LocatorReader:
    """Reads the bytes of locators below ``root`` (a path or URL), keeping the files of the last few archives open."""

    MAX_OPEN = 64
    AHEAD = 32
    """Images of a remote source asked for before they are needed: a request takes longer than a recode."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._folder = open_folder(root)
        self._open: dict[str, RandomFile] = {}

    def read(self, locator: Locator) -> bytes:
        """The image's bytes. Raises SourceError if the file is gone or has become shorter, ImageError if these bytes
        alone are no good: too many, or packed and damaged."""
        data = _read(self.root, self._file(locator), locator)
        if not locator.member:
            # A plain file is read once: thousands of open files would meet the process's limit.
            self._open.pop(locator.file).close()
        return data

    def read_many(self, locators: Iterable[Locator]) -> Iterator[bytes | ImageError]:
        """The bytes of each in turn, or what is wrong with them; from a remote source several are under way at once."""
        if not self._folder.remote:
            for locator in locators:
                yield _or_error(functools.partial(self.read, locator))
            return
        with ThreadPoolExecutor(self.AHEAD) as pool:
            rest = iter(locators)
            under_way: collections.deque[Future[bytes]] = collections.deque()
            try:
                while True:
                    for locator in itertools.islice(rest, self.AHEAD - len(under_way)):
                        under_way.append(pool.submit(_read, self.root, self._file(locator), locator))
                    if not under_way:
                        return
                    yield _or_error(under_way.popleft().result)
            finally:
                for future in under_way:
                    future.cancel()

    def _file(self, locator: Locator) -> RandomFile:
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


def _read(root: str, file: RandomFile, locator: Locator) -> bytes:
    if locator.size > MAX_BYTES:
        raise ImageError(f"{locator.size} bytes are too many for an image")
    try:
        data = _bytes(file, locator)
    except OSError as error:
        raise SourceError(f"{join(root, locator.file)}: {error.strerror or error}") from error
    if len(data) < locator.size:
        raise SourceError(f"{locator}: the file has become shorter while it was being read")
    return data


def _bytes(file: RandomFile, locator: Locator) -> bytes:
    if locator.packing:
        return UNPACK[locator.packing.partition(":")[0]](file, locator)
    return file.read(locator.offset, locator.size)
