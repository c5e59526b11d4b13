"""Reads a tar that may be compressed from its beginning to its end, in bounded memory."""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Iterator

from imgtool.pipelines.archives import compressed, magic, tar
from imgtool.pipelines.archives.links import Links
from imgtool.pipelines.storage.passed_over import PassedOver
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

MAX_SIZE = 1 << 62
WINDOW = 4 << 20
"""Bytes before the last ones read that can still be read: more than the readers of a tar go back."""
CHUNK = 1 << 18
KINDS = ("gzip", "bzip2", "xz")


class Stream:
    """The decompressed content of ``data``, at most ``limit`` bytes, as a file that is read mostly forwards.

    ``read`` raises SourceError if the data are damaged or have more bytes. ``name`` is the file's name in messages.
    """

    def __init__(self, data: bytes, name: str, limit: int) -> None:
        kind = magic.compression(data[: magic.HEAD_BYTES])
        if kind and kind not in KINDS:
            raise SourceError(f"{name}: is compressed by {kind}, which is not read here; compress it by gzip")
        raw = io.BytesIO(data)
        self._stream: compressed.Stream = compressed.OPENERS[kind](raw) if kind else raw
        self._name, self._window, self._end = name, bytearray(), 0
        self.size, self._limit = MAX_SIZE, limit  # the real size is known only at the end

    def read(self, offset: int, size: int) -> bytes:
        while self._end < offset + size and self._more(offset):
            pass
        begin = offset - (self._end - len(self._window))
        if begin < 0:
            raise SourceError(f"{self._name} is damaged: it cannot be read in order; download it again")
        return bytes(self._window[begin : begin + size])

    def _more(self, needed: int) -> bool:
        """Reads on, and keeps what is ``needed`` from this offset on."""
        try:
            data = self._stream.read1(CHUNK)
        except EOFError:
            raise SourceError(f"{self._name} is truncated; download it again") from None
        except (OSError, zlib.error, lzma.LZMAError) as error:
            raise SourceError(f"{self._name} is damaged ({error}); download it again") from None
        self._end += len(data)
        self._window += data
        if self._end > self._limit:
            raise SourceError(f"{self._name}: holds more than {self._limit:,} bytes; do not use this archive")
        begin = self._end - len(self._window)
        if (surplus := min(needed, self._end - WINDOW) - begin) > WINDOW:
            del self._window[:surplus]
        return bool(data)

    def check(self) -> int:
        """Reads the rest, which checks the checksum at the end of a compressed file. Returns the number of bytes."""
        while self._more(self._end):
            pass
        return self._end

    def close(self) -> None:
        pass


def members(stream: Stream, name: str) -> Iterator[tar.Member]:
    """Yields the regular files of the tar in ``stream``, in order; sparse ones are left out.

    Raises SourceError if it is not a tar, is damaged or truncated.
    """
    try:
        for member in tar.entries(stream, name, 0, None, Links(PassedOver())):
            if not member.packing:
                yield member
    except TruncatedSourceError:
        raise SourceError(f"{name} is truncated: cannot be read to its end; download it again") from None


def content(stream: Stream, member: tar.Member, name: str) -> bytes:
    """Returns the bytes of the member that `members` has just yielded."""
    data = stream.read(member.offset, member.size)
    if len(data) < member.size:
        raise SourceError(f"{name} is truncated: cannot be read to its end; download it again")
    return data
