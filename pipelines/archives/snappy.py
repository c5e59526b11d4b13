"""Where the parts of a snappy stream lie, so that an image in the middle of one can be read without the rest.

The format (google/snappy, format_description.txt): the uncompressed length, then literals and copies of what came
before. Compressors work in blocks of 64 KiB: no element of the known ones leaves its block. A block can thus be
decompressed by itself; and as images do not compress, a block is mostly one literal, which is passed over unread.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import pyarrow as pa

from imgtool.pipelines.storage.folders import RandomAccessFile

BLOCK = 1 << 16
MAX_ELEMENTS = 4096
"""Elements in a block above which its walk in Python costs more than decompressing it."""


class Opaque(Exception):
    """The stream cannot be read in part: it is packed in another way, too finely, or damaged."""


class Window:
    """Bytes [begin, end) of a file, read ``step`` bytes at a time: little where the next read is far away."""

    def __init__(self, file: RandomAccessFile, begin: int, end: int, step: int) -> None:
        self._file, self.begin, self.end, self._step = file, begin, end, step
        self._at, self._data = begin, b""

    def read(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes; fewer where the part ends."""
        start = at - self._at
        if start < 0 or start + size > len(self._data):
            self._data = self._file.read(at, max(min(max(size, self._step), self.end - at), 0))
            self._at, start = at, 0
        return self._data[start : start + size]


class Part(NamedTuple):
    """``packed`` bytes of the file at ``offset`` that unpack to ``size`` bytes, the wanted ones from ``skip`` on."""

    offset: int
    packed: int
    size: int
    skip: int


class Sparse:
    """The ``size`` uncompressed bytes of the snappy stream [begin, end), to be read forward, a little here and there.

    Raises Opaque, here and later, for a stream that this cannot be done with.
    """

    def __init__(self, window: Window, begin: int, end: int) -> None:
        self._window, self._end = window, end
        self.size, used = varint(window.read(begin, 5))
        self._at, self._done = begin + used, 0  # the next element, and how many bytes those before it make
        self._blocks: list[int] = []  # where each block begins
        self._starts: list[int] = []  # of the elements of the last two blocks: what they begin at, uncompressed,
        self._sources: list[int] = []  # and where their bytes lie, or how far back they are copied from, negative
        self._before = 0  # the elements of the last block but one

    def read(self, at: int, size: int) -> bytes:
        """``size`` bytes, no further back than the block before the last one read."""
        if at + size > self.size:
            raise Opaque
        self._walk(at + size)
        if not self._starts or at < self._starts[0]:
            raise Opaque
        i = bisect_right(self._starts, at) - 1
        stop = self._starts[i + 1] if i + 1 < len(self._starts) else self._done
        if self._sources[i] >= 0 and at + size <= stop:
            return self._window.read(self._sources[i] + at - self._starts[i], size)
        return b"".join(self._byte(place) for place in range(at, at + size))

    def part(self, at: int, size: int) -> Part:
        """Where the blocks lie that hold these bytes (one at least). It looks ahead: read no more after it."""
        self._walk(self.size)
        first, last = at // BLOCK, -(-(at + size) // BLOCK)
        end = self._blocks[last] if last < len(self._blocks) else self._at
        begin = self._blocks[first]
        return Part(begin, end - begin, min(last * BLOCK, self.size) - first * BLOCK, at - first * BLOCK)

    def _byte(self, at: int) -> bytes:
        while True:
            i = bisect_right(self._starts, at) - 1
            start, source = self._starts[i], self._sources[i]
            if source >= 0:
                return self._window.read(source + at - start, 1)
            at = start + source + (at - start) % -source  # a copy longer than its distance repeats itself

    def _walk(self, until: int) -> None:
        window, at, done = self._window, self._at, self._done
        while done < until:
            if done % BLOCK == 0:
                self._blocks.append(at)
                del self._starts[: self._before], self._sources[: self._before]
                self._before = len(self._starts)
            head = window.read(at, 5)
            if len(head) < 5:
                head += bytes(5 - len(head))
            kind, upper = head[0] & 3, head[0] >> 2
            if kind == 0:
                extra = max(upper - 59, 0)
                length = (int.from_bytes(head[1 : 1 + extra], "little") if extra else upper) + 1
                source = at + 1 + extra
                at = source + length
            elif kind == 1:
                length, source, at = (upper & 7) + 4, -(upper >> 3 << 8 | head[1]), at + 2
            elif kind == 2:
                length, source, at = upper + 1, -int.from_bytes(head[1:3], "little"), at + 3
            else:
                length, source, at = upper + 1, -int.from_bytes(head[1:5], "little"), at + 5
            place = done % BLOCK
            if (
                place + length > BLOCK
                or done + length > self.size
                or at > self._end
                or (kind and not 0 < -source <= place)
                or len(self._starts) - self._before > MAX_ELEMENTS
            ):
                raise Opaque
            self._starts.append(done)
            self._sources.append(source)
            done += length
        self._at, self._done = at, done
        if done == self.size and at != self._end:
            raise Opaque


def decompress(data: bytes, size: int) -> memoryview:
    """The ``size`` bytes of whole blocks, or of a stream without its length. Raises Opaque if they are damaged."""
    stream = bytearray()
    rest = size
    while rest >= 0x80:
        stream.append(rest & 0x7F | 0x80)
        rest >>= 7
    stream.append(rest)
    try:
        return memoryview(pa.Codec("snappy").decompress(bytes(stream) + data, size)).cast("B")
    except (pa.ArrowException, OSError) as error:
        raise Opaque(str(error)) from None


def varint(data: bytes) -> tuple[int, int]:
    """The uncompressed length a stream begins with, and its own length. Raises Opaque if there is none."""
    value = 0
    for i, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, i + 1
    raise Opaque
