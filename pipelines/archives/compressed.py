"""Compressed tars. A gzip stream cannot be read at random, as shuffled samples are: it is unpacked once, streaming."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from imgtool.pipelines.storage.atomic import replacing
from imgtool.wordnet.errors import SourceError

Stream = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile
OPENERS: dict[str, Callable[[Path], Stream]] = {
    ".gz": gzip.GzipFile,
    ".tgz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
CHUNK = 1 << 22


def unpacked(path: Path, spool: Path) -> Path:
    """The tar of a compressed one, in ``spool``; there already if it was unpacked before and has not changed since.

    Of a stream that is cut off what came is kept: the tar then ends early, and its reader says so. Raises SourceError
    for what is no such stream.
    """
    stat = path.stat()
    name = next(path.name[: -len(ending)] for ending in ENDINGS if path.name.endswith(ending)) + ".tar"
    target = spool / f"{stat.st_size}-{stat.st_mtime_ns}" / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(target) as temporary, open(temporary, "wb") as out, OPENERS[path.suffix](path) as stream:
            _copy(stream, out)
            out.flush()
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise SourceError(
            f"{path}: is damaged or not compressed as its name says ({error}); download it again"
        ) from None
    return target


def _copy(stream: Stream, out: IO[bytes]) -> None:
    try:
        while data := stream.read1(CHUNK):  # read() would lose what came before the cut
            out.write(data)
    except EOFError:
        pass  # the stream is cut off
