"""Indexes tar archives in place: the offset and size of each member, without reading or extracting it.

The standard library's tarfile is not used because it needs a minute for ImageNet's 1.28 million headers, and accepts an
archive that was truncated between two members as complete. Formats: V7, ustar, GNU (long names, base-256 sizes, sparse
files) and pax (path, size, sparse files).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from imgtool.pipelines.archives import sparse
from imgtool.pipelines.archives.links import Links, is_outside, normal
from imgtool.pipelines.archives.magic import is_tar_header
from imgtool.pipelines.archives.sparse import decimal, number
from imgtool.pipelines.storage.folders import RandomAccessFile, ReadAheadFile
from imgtool.pipelines.storage.passed_over import AFTER_END, SPECIAL, PassedOver
from imgtool.pipelines.storage.text import decode_name
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

BLOCK = 512
LONG_NAME, LONG_LINK, PAX, SPARSE = b"L", b"K", b"x", b"S"
HARD_LINK, SYMLINK = b"1", b"2"
FOLDER, DUMP_FOLDER = b"5", b"D"
WITHOUT_FILE = (b"V", b"g", b"N", b"X")
"""A volume's label, and headers whose content does not matter here."""
SPECIAL_FILES = (b"3", b"4", b"6", b"M")
"""Devices, pipes, and the rest of a file that began in another volume. Unknown types are regular files, says POSIX."""
MAX_PADDING = 1 << 16
"""Bytes after the end-of-archive block in which another tar is looked for. Tars are padded to 10 KiB."""
MAX_DIGITS = 7
"""Digits of the length of a record in a pax header."""
MAX_METADATA = 1 << 20
"""Largest long-name or pax header. A larger one is refused before it is read into memory."""


class Member(NamedTuple):
    """A regular file in an archive: its name, offset and size in the outermost file, and packing (see `Locator`)."""

    name: str
    offset: int
    size: int
    packing: str = ""


def scan(
    file: RandomAccessFile,
    archive: str,
    start: int = 0,
    end: int | None = None,
    *,
    include_truncated: bool = False,
    passed_over: PassedOver | None = None,
) -> Iterator[Member]:
    """Yields the files of the tar in bytes [start, end) of a file that are data: in order, those of links last.

    Hidden and system files, links without a file and special files are added to ``passed_over``. The rest is as for
    `entries`.
    """
    passed_over = PassedOver() if passed_over is None else passed_over
    links, files = Links(passed_over), {}
    truncated: TruncatedSourceError | None = None
    try:
        for member in entries(file, archive, start, end, links, include_truncated=include_truncated):
            files[member.name] = member
            if not passed_over.add_litter(member.name):
                yield member
    except TruncatedSourceError as error:
        truncated = error
    for name, member in links.resolve(files):
        if not passed_over.add_litter(name):
            yield member._replace(name=name)
    if truncated:
        raise truncated


def entries(
    file: RandomAccessFile,
    archive: str,
    start: int,
    end: int | None,
    links: Links,
    *,
    include_truncated: bool = False,
) -> Iterator[Member]:
    """Yields the regular files of the tar in bytes [start, end) of a file, in order.

    ``archive`` is the archive's name in messages. Links are added to ``links``, special files to what it passes over.
    Raises SourceError if this is not a tar, is damaged or has a member whose path points outside the archive. Raises
    TruncatedSourceError, after the last complete member, if there is no end-of-archive block. ``include_truncated``
    also yields the incomplete last member, for a caller that can use parts of it.
    """
    end = file.size if end is None else end
    file = ReadAheadFile(file)
    position = start
    long_name: str | None = None
    long_link: str | None = None
    pax: dict[str, str] = {}
    while True:
        header = file.read(position, BLOCK) if position + BLOCK <= end else b""
        if len(header) < BLOCK:
            raise TruncatedSourceError(
                f"{archive} is truncated: it ends at byte {end - start} without an end-of-archive block"
            )
        if not header.strip(b"\0"):
            _look_after_the_end(file, position + BLOCK, end, links.passed_over)
            return
        size = number(header[124:136])
        if size is None or not is_tar_header(header):
            if position == start:
                raise SourceError(f"{archive} is not a tar archive; download it again")
            raise SourceError(
                f"{archive} is damaged: there is no tar header at byte {position - start}; download it again"
            )
        if "size" in pax:
            size = decimal(pax["size"])
            if size is None:
                raise SourceError(
                    f"{archive} is damaged: the pax header before byte {position - start} states an impossible size; "
                    "download it again"
                )
        kind = header[156:157]
        data = position + BLOCK
        if size and kind in b"123456" and is_tar_header(file.read(data, BLOCK)):
            size = 0  # some writers state the size of the file that a link leads to
        position = data + (size + BLOCK - 1) // BLOCK * BLOCK
        if data + size > end:
            if include_truncated and kind in b"\x0007":
                yield Member(normal(_name(header, long_name, pax)), data, size)
            raise TruncatedSourceError(
                f"{archive} is truncated: {_name(header, long_name, pax)} has {size} bytes from byte {data - start} "
                f"on, but the archive ends at byte {end - start}"
            )
        if kind in (LONG_NAME, LONG_LINK, PAX, b"g"):
            if size > MAX_METADATA:
                raise SourceError(
                    f"{archive} is damaged: it has a header of {size} bytes at byte {data - start}; download it again"
                )
            if kind == LONG_NAME:
                long_name = decode_name(file.read(data, size).rstrip(b"\0"))
            elif kind == LONG_LINK:
                long_link = decode_name(file.read(data, size).rstrip(b"\0"))
            elif kind == PAX:
                pax = _pax(file.read(data, size))
            continue
        name = _name(header, long_name, pax)
        if kind in (FOLDER, DUMP_FOLDER) or name.endswith("/"):  # V7's folders have the type of a file
            links.passed_over.folders.add(normal(name))
        elif kind not in WITHOUT_FILE:
            if is_outside(name):
                raise SourceError(f"{archive}: member {name!r} points outside the archive; do not use this archive")
            name = normal(name)
            if kind in (HARD_LINK, SYMLINK):
                target = pax.get("linkpath") or long_link or decode_name(header[157:257].split(b"\0", 1)[0])
                links.add(name, target, hard=kind == HARD_LINK)
            elif kind in SPECIAL_FILES:
                links.passed_over.add(SPECIAL, name)
            else:
                links.drop(name)
                member = Member(name, data, size)
                if kind == SPARSE or (pax and any(key.startswith("GNU.sparse.") for key in pax)):
                    try:
                        member, position = _sparse(file, member, header, pax, position, end)
                    except sparse.Damaged:
                        raise SourceError(
                            f"{archive} is damaged: the map of the sparse member {name!r} is impossible; "
                            "download it again"
                        ) from None
                yield member
        long_name = long_link = None
        pax = {}


def _look_after_the_end(file: RandomAccessFile, position: int, end: int, passed_over: PassedOver) -> None:
    """Adds a tar that follows the end-of-archive blocks to ``passed_over``, as tar does not unpack it either."""
    for at in range(position, min(end, position + MAX_PADDING), BLOCK):
        block = file.read(at, BLOCK)
        if block.strip(b"\0"):
            if is_tar_header(block):
                passed_over.add(AFTER_END, _name(block, None, {}))
            return


def _sparse(
    file: RandomAccessFile, member: Member, header: bytes, pax: dict[str, str], position: int, end: int
) -> tuple[Member, int]:
    """Returns the sparse member that ``member``'s header states, and where the next header begins."""
    stored = member.size
    if header[156:157] == SPARSE:
        pieces, size, data = sparse.old_map(file, header, member.offset, end)
        position += data - member.offset  # the size does not include the blocks that continue the map
    else:
        pieces, size, data = sparse.pax_map(file, pax, member.offset, end)
        stored -= data - member.offset
    if data + stored > end:
        raise sparse.Damaged
    return Member(member.name, data, size, sparse.packing(pieces, stored, size)), position


def _name(header: bytes, long_name: str | None, pax: dict[str, str]) -> str:
    if pax:
        stated = pax.get("GNU.sparse.name") or pax.get("path")
        if stated is not None:
            return stated
    if long_name is not None:
        return long_name
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
        if prefix:
            name = prefix + b"/" + name
    return decode_name(name)


def _pax(data: bytes) -> dict[str, str]:
    """Parses a pax header into its records, "LENGTH KEY=VALUE\\n", where LENGTH is that of the whole record."""
    out: dict[str, str] = {}
    pieces: list[str] = []
    at = 0
    while at < len(data):
        digits = data[at : data.find(b" ", at, at + MAX_DIGITS + 1)]
        length = int(digits) if digits.isdigit() else 0
        if not len(digits) < length <= len(data) - at:
            break
        key, equals, value = data[at + len(digits) + 1 : at + length - 1].partition(b"=")
        at += length
        if not equals:
            continue
        name = key.decode("utf-8", "replace")
        if name in ("GNU.sparse.offset", "GNU.sparse.numbytes"):  # format 0.0: one record per number
            pieces.append(decode_name(value))
        else:
            out[name] = decode_name(value)
    if pieces:
        out["GNU.sparse.map"] = ",".join(pieces)
    return out
