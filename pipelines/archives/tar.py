"""Indexes tar archives in place: the offset and size of each member, without reading or extracting it.

The standard library's tarfile is not used because it needs a minute for ImageNet's 1.28 million headers, and accepts an
archive that was truncated between two members as complete. Formats: ustar, GNU (long names, base-256 sizes) and pax
(path, size).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from imgtool.pipelines.storage.folders import RandomAccessFile, ReadAheadFile
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

BLOCK = 512
REGULAR = (b"0", b"\0", b"7")
MAX_METADATA = 1 << 20
"""Largest long-name or pax header. A larger one is refused before it is read into memory."""


class Member(NamedTuple):
    """A regular file in an archive: its name, and offset and size of its bytes in the outermost file."""

    name: str
    offset: int
    size: int


def scan(
    file: RandomAccessFile, archive: str, start: int = 0, end: int | None = None, *, include_truncated: bool = False
) -> Iterator[Member]:
    """Yields the regular files of the tar in bytes [start, end) of a file, in order.

    ``archive`` is the archive's name in messages. Directories, links and devices are skipped. Raises SourceError if
    this is not a tar, is damaged or has a member whose path points outside the archive. Raises TruncatedSourceError,
    after the last complete member, if there is no end-of-archive block. ``include_truncated`` also yields the
    incomplete last member, for a caller that can use parts of it.
    """
    end = file.size if end is None else end
    file = ReadAheadFile(file)
    position = start
    long_name: str | None = None
    pax: dict[str, str] = {}
    while True:
        header = file.read(position, BLOCK) if position + BLOCK <= end else b""
        if len(header) < BLOCK:
            raise TruncatedSourceError(
                f"{archive} is truncated: it ends at byte {end - start} without an end-of-archive block"
            )
        if not header.strip(b"\0"):
            return
        size = _number(header[124:136])
        if size is None or not _checksum_ok(header):
            if position == start:
                raise SourceError(f"{archive} is not a tar archive; download it again")
            raise SourceError(
                f"{archive} is damaged: there is no tar header at byte {position - start}; download it again"
            )
        if "size" in pax and pax["size"].isdigit():
            size = int(pax["size"])
        kind = header[156:157]
        data = position + BLOCK
        position = data + (size + BLOCK - 1) // BLOCK * BLOCK
        if data + size > end:
            if include_truncated and kind in REGULAR:
                yield Member(_name(header, long_name, pax), data, size)
            raise TruncatedSourceError(
                f"{archive} is truncated: {_name(header, long_name, pax)} has {size} bytes from byte {data - start} "
                f"on, but the archive ends at byte {end - start}"
            )
        if kind in (b"L", b"x", b"K", b"g"):
            if size > MAX_METADATA:
                raise SourceError(
                    f"{archive} is damaged: it has a header of {size} bytes at byte {data - start}; download it again"
                )
            if kind == b"L":
                long_name = file.read(data, size).rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif kind == b"x":
                pax = _pax(file.read(data, size))
            continue
        name = _name(header, long_name, pax)
        long_name, pax = None, {}
        if kind in REGULAR:
            if name.startswith("/") or ".." in name.split("/"):
                raise SourceError(f"{archive}: member {name!r} points outside the archive; do not use this archive")
            yield Member(name.removeprefix("./"), data, size)


def _number(field: bytes) -> int | None:
    if field[0] == 0x80:  # GNU's base-256, for sizes of 8 GiB and more
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        return None


def _checksum_ok(header: bytes) -> bool:
    # the sum of all bytes, with the eight bytes of the checksum itself counted as spaces
    return _number(header[148:156]) == sum(header) - sum(header[148:156]) + 8 * 32


def _name(header: bytes, long_name: str | None, pax: dict[str, str]) -> str:
    if "path" in pax:
        return pax["path"]
    if long_name is not None:
        return long_name
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
        if prefix:
            name = prefix + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _pax(data: bytes) -> dict[str, str]:
    """Parses a pax header into its records, "LENGTH KEY=VALUE\\n", where LENGTH is that of the whole record."""
    out: dict[str, str] = {}
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(data):
            break
        record, data = data[: int(length)], data[int(length) :]
        key, equals, value = record[len(length) + 1 : -1].partition(b"=")
        if equals:
            out[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
    return out
