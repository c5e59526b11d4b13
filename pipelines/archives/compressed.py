"""Compressed tars. They allow no random access, which shuffled samples need, so they are decompressed once to disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from imgtool.pipelines.storage.atomic import atomic_write
from imgtool.wordnet.errors import SourceError

CompressedFile = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile
OPENERS: dict[str, Callable[[Path], CompressedFile]] = {
    ".gz": gzip.GzipFile,
    ".tgz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
CHUNK = 1 << 22


def decompressed(path: Path, spool: Path) -> Path:
    """Decompresses a tar into the folder ``spool`` and returns the path of the result.

    A result that is there already is used again, unless size or modification time of the archive have changed. A
    truncated archive is decompressed as far as it goes; the reader of the tar then reports the truncation. Raises
    SourceError if the file is not compressed in the format of its suffix, or is damaged.
    """
    stat = path.stat()
    name = next(path.name[: -len(suffix)] for suffix in SUFFIXES if path.name.endswith(suffix)) + ".tar"
    target = spool / f"{stat.st_size}-{stat.st_mtime_ns}" / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(target) as temporary, open(temporary, "wb") as out, OPENERS[path.suffix](path) as stream:
            _copy(stream, out)
            out.flush()
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise SourceError(
            f"{path}: is damaged, or is not a {path.suffix} file as its name says ({error}); download it again"
        ) from None
    return target


def _copy(stream: CompressedFile, out: IO[bytes]) -> None:
    try:
        while data := stream.read1(CHUNK):  # read() would lose the data before a truncation
            out.write(data)
    except EOFError:
        pass  # the stream is truncated
