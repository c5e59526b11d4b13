"""Reads images' bytes by their locators: plain files and archive members, from a local folder or an object store."""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow.parquet as pq

from imgtool.pipelines.archives import parquet, sparse
from imgtool.pipelines.archives import zip as zips
from imgtool.pipelines.records import MAX_BYTES, UNREADABLE, Locator
from imgtool.pipelines.storage.folders import Folder, RandomAccessFile, join, open_folder
from imgtool.wordnet.errors import ImageError, SourceError

DEFLATE, SPARSE, PARQUET = "deflate:", "sparse:", "parquet:"
"""How the ``packing`` of a locator begins: zip members, sparse tar members, and rows of parquet files."""


class LocatorReader:
    """Reads the bytes of locators below ``root`` (a path or URL), and keeps the last ``MAX_OPEN`` archives open.

    ``folder`` replaces the way files are opened, for example to count reads.
    """

    MAX_OPEN = 64
    PREFETCHED, PREFETCHED_BYTES = 16, 64 << 20
    """Runs of a remote source requested in advance, at most so many and of so many bytes: a request takes longer than
    recoding an image."""

    def __init__(self, root: str, folder: Folder | None = None) -> None:
        self.root = root
        self._folder = folder or open_folder(root)
        self._open: dict[str, RandomAccessFile] = {}
        self._footers: dict[str, pq.FileMetaData] = {}

    def read(self, locator: Locator) -> bytes:
        """Returns the image's bytes.

        Raises SourceError if the file is missing or has become shorter. Raises ImageError if only this image cannot be
        read: it is too large, or its packed bytes are damaged.
        """
        [data] = self._read([locator])
        if isinstance(data, ImageError):
            raise data
        return data

    def read_many(self, locators: Iterable[Locator]) -> Iterator[bytes | ImageError]:
        """Yields the bytes of each image in order, or the ImageError that reading it raised.

        Images of one run (see `Locator.run`) that follow each other are read at once. Runs of a remote source are
        requested in advance.
        """
        runs = (list(run) for _, run in itertools.groupby(locators, lambda locator: locator.run))
        if not self._folder.remote:
            for of_file in runs:
                yield from self._read(of_file)
            return
        with ThreadPoolExecutor(self.PREFETCHED) as pool:
            pending: collections.deque[tuple[int, Future[list[bytes | ImageError]]]] = collections.deque()
            try:
                for run in itertools.chain(runs, [None] * self.PREFETCHED):
                    while pending and (
                        run is None
                        or len(pending) == self.PREFETCHED
                        or sum(size for size, _ in pending) > self.PREFETCHED_BYTES
                    ):
                        yield from pending.popleft()[1].result()
                    if run:
                        file = self._file(run[0])
                        future = pool.submit(lambda file, run: list(self._read_from(file, run)), file, run)
                        pending.append((sum(max(one.size, 1 << 17) for one in run), future))
            finally:
                for _, future in pending:
                    future.cancel()

    def heads(self, locators: Iterable[Locator], size: int) -> Iterator[bytes]:
        """Yields the first ``size`` bytes of each file, fewer of a shorter one, in order."""
        if self._folder.remote:
            with ThreadPoolExecutor(self.PREFETCHED) as pool:
                yield from pool.map(lambda locator: self._head(locator, size), locators)
        else:
            yield from (self._head(locator, size) for locator in locators)

    def _head(self, locator: Locator, size: int) -> bytes:
        try:
            if locator.member:
                return _head(self._file(locator), locator, size)
            with contextlib.closing(self._folder.open(locator.file)) as file:
                return file.read(0, size)
        except OSError as error:
            raise SourceError(f"{join(self.root, locator.file)}: {error.strerror or error}") from error

    def _read(self, run: Sequence[Locator]) -> Iterator[bytes | ImageError]:
        yield from self._read_from(self._file(run[0]), run)
        if not run[0].member:
            # A plain file is read once, and keeping thousands of them open would exceed the process's limit.
            self._open.pop(run[0].file, _NO_FILE).close()

    def _read_from(self, file: RandomAccessFile, run: Sequence[Locator]) -> Iterator[bytes | ImageError]:
        """Yields the bytes of images of one run of ``file``."""
        path = join(self.root, run[0].file)
        if run[0].packing.startswith(UNREADABLE):
            yield from (ImageError(one.packing.removeprefix(UNREADABLE)) for one in run)
            return
        try:
            if run[0].packing.startswith(PARQUET):
                if run[0].file not in self._footers:
                    self._footers[run[0].file] = parquet.footer(file)
                yield from parquet.read(file, run, self._footers[run[0].file])
                return
            if len(run) > 1:
                file = _Piece(file, run)
            for locator in run:
                yield _read(path, file, locator)
        except parquet.Damaged as error:
            raise SourceError(f"{path}: {error}; leave the source unchanged while it is in use") from None
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror or error}") from error

    def _file(self, locator: Locator) -> RandomAccessFile:
        if locator.packing.startswith(UNREADABLE):
            return _NO_FILE
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


class _NoFile:
    """Stands for the file of an image that cannot be stored."""

    size = 0

    def read(self, offset: int, size: int) -> bytes:
        return b""

    def close(self) -> None:
        pass


_NO_FILE = _NoFile()


class _Piece:
    """The part of a file that holds the images of a run, in memory. What is outside is read from the file."""

    def __init__(self, file: RandomAccessFile, run: Sequence[Locator]) -> None:
        self.size, self._file = file.size, file
        stored = [(one.offset, one.offset + stored_bytes(one)) for one in run if one.size <= MAX_BYTES]
        self._begin = min((begin for begin, _ in stored), default=0)
        end = min(max((end for _, end in stored), default=0), self._begin + MAX_BYTES)
        self._data = memoryview(file.read(self._begin, end - self._begin))

    def read(self, offset: int, size: int) -> bytes:
        begin = offset - self._begin
        if 0 <= begin <= begin + size <= len(self._data):
            return bytes(self._data[begin : begin + size])
        return self._file.read(offset, size)

    def close(self) -> None:
        pass


def stored_bytes(locator: Locator) -> int:
    """The bytes of the archive that reading an image takes."""
    if locator.packing.startswith(DEFLATE):
        return zips.stored_bytes(locator)
    return sparse.stored_bytes(locator) if locator.packing.startswith(SPARSE) else locator.size


def _head(file: RandomAccessFile, locator: Locator, size: int) -> bytes:
    if locator.packing.startswith(DEFLATE):
        return zips.head(file, locator, size)
    if locator.packing.startswith(SPARSE):
        return sparse.unpack(file, locator)[:size] if locator.size <= MAX_BYTES else b""
    return file.read(locator.offset, min(size, locator.size))


def _read(path: str, file: RandomAccessFile, locator: Locator) -> bytes | ImageError:
    if locator.size > MAX_BYTES:
        return ImageError(f"{locator.size} bytes are too many for an image")
    try:
        if locator.packing.startswith(DEFLATE):
            data = zips.unpack(file, locator)
        elif locator.packing.startswith(SPARSE):
            data = sparse.unpack(file, locator)
        else:
            data = file.read(locator.offset, locator.size)
    except ImageError as error:
        return error
    if len(data) < locator.size:
        raise SourceError(
            f"{path}: {locator}: the file has become shorter while it was being read; "
            "leave the source unchanged while it is in use"
        )
    return data
