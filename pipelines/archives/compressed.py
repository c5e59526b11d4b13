"""Compressed tars. They allow no random access, which shuffled samples need, so they are decompressed once to disk."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

import pyarrow as pa

from imgtool.pipelines.archives import magic
from imgtool.pipelines.storage.atomic import atomic_write
from imgtool.wordnet.errors import SourceError

SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
CHUNK = 1 << 22
SMALL_TAR, MAX_RATIO = 1 << 32, 100
"""Bytes up to which a tar may be compressed to any degree, and how often a larger one may be larger than its file."""
SMALL, NEAR_END = 1 << 9, 1 << 20
"""Bytes read at once near the end of a zstd file, as Arrow loses those of the read that meets a truncation."""


class Stream(Protocol):
    """A decompressed file, read from the beginning."""

    def read1(self, size: int = -1, /) -> bytes: ...


class Zstd:
    """A zstd file: one frame or several."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._size = raw, os.fstat(raw.fileno()).st_size
        self._stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")

    def read1(self, size: int = -1) -> bytes:
        try:
            is_near_end = self._size - self._raw.tell() < NEAR_END
            data: bytes = self._stream.read(SMALL if is_near_end else NEAR_END // 4)
        except OSError as error:
            if "Truncated" in str(error):
                raise EOFError from None
            raise zlib.error(str(error)) from None
        return data


OPENERS: dict[str, Callable[[IO[bytes]], Stream]] = {
    "gzip": lambda raw: gzip.GzipFile(fileobj=raw),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "zstd": Zstd,
}


@contextlib.contextmanager
def unpacked(path: Path, spool: Path) -> Iterator[Path]:
    """Yields the path of a decompressed file, in the folder ``spool``. Its format is decided by its content.

    A result that is there already is used again, unless size or modification time of the file have changed. A truncated
    file is decompressed as far as it goes; the reader of the tar then reports the truncation. Raises SourceError if the
    file is damaged or not compressed, or if what is in it is compressed again. The result remains for the next run,
    unless an error is raised here or by the caller: then it is removed.
    """
    stat = path.stat()
    target = spool / f"{stat.st_size}-{stat.st_mtime_ns}" / f"{_stem(path.name)}.tar"
    new = [folder for folder in target.parents if not folder.exists()]
    try:
        if not target.exists():
            _decompress(path, target)
        yield target
    except BaseException:
        shutil.rmtree(target.parent, ignore_errors=True)
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _decompress(path: Path, target: Path) -> None:
    with open(path, "rb") as raw:
        kind = magic.compression(raw.read(magic.HEAD_BYTES))
        raw.seek(0)
        if not kind:
            raise SourceError(f"{path}: is not a {path.suffix} file as its name says; download it again")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_write(target) as temporary:
                with open(temporary, "wb") as out:
                    _copy(OPENERS[kind](raw), out, path)
                _check(path, temporary)
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk
            raise SourceError(f"{path}: is damaged ({error}); download it again") from None


def _stem(name: str) -> str:
    lower = name.lower()
    known = next((suffix for suffix in SUFFIXES if lower.endswith(suffix)), "")
    return (name[: -len(known)] if known else name.partition(".")[0]) or "archive"


def _copy(stream: Stream, out: IO[bytes], path: Path) -> None:
    most, written = max(SMALL_TAR, MAX_RATIO * path.stat().st_size), 0
    try:
        while data := stream.read1(CHUNK):  # read() would lose the data before a truncation
            written += out.write(data)
            if written > most:
                raise SourceError(f"{path}: expands to more than {most:,} bytes; do not use this archive")
    except EOFError:
        pass  # the stream is truncated


def _check(path: Path, result: Path) -> None:
    with open(result, "rb") as file:
        head = file.read(magic.HEAD_BYTES)
    if not head:
        raise SourceError(f"{path} is truncated: not even its beginning can be decompressed; download it again")
    if inner := magic.compression(head):
        raise SourceError(f"{path}: holds a {inner} file instead of a tar; unpack it first")
