"""Indexes zip archives in place, from the central directory alone, and reads single members.

The standard library's zipfile is not used because it needs a gigabyte of memory and three times as long for the 1.3
million members of Kaggle's archive. The format is PKWARE's APPNOTE.TXT 6.3.10 (4.3 records, 4.5 extra fields, Appendix
D names, which programs on Unix do not follow). Members may be stored or deflated. Zip64, comments and bytes before the
archive (self-extractors) are supported. Encrypted members, other compression methods and archives of several volumes
are refused.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from imgtool.pipelines.archives.links import Links, normal
from imgtool.pipelines.records import MAX_BYTES, Locator
from imgtool.pipelines.storage.folders import RandomAccessFile
from imgtool.pipelines.storage.passed_over import DANGLING, SPECIAL
from imgtool.pipelines.storage.text import decode_name
from imgtool.wordnet.errors import ImageError, SourceError, TruncatedSourceError

# The records' fields, named as in the specification where not obvious. Local file header:
LOCAL = struct.Struct("<4s5H3L2H")  # signature, version, flags, method, time, date, crc, packed, size, name, extra
# Central directory file header:
ENTRY = struct.Struct("<4sH2x2H4x3L3H4x2L")  # …, lengths of name, extra and comment, attributes, local header's offset
# End of central directory record: signature, this volume, first volume, entries on this volume, entries in total,
# the directory's size and offset, length of the comment
END = struct.Struct("<4s4H2LH")
LOCATOR64 = struct.Struct("<4sLQL")  # signature, volume, offset of END64, number of volumes
END64 = struct.Struct("<4sQ2H2L4Q")
MAX_COMMENT = 0xFFFF
CHUNK = 8 << 20
"""Bytes of the directory that are read at once: more than the largest entry (three fields of 64 KiB)."""
SLACK = 128
"""Extra bytes that are read with a member, for the local header's extra fields, so that one read usually suffices."""
MAX_RATIO = 1032
"""The highest compression ratio of deflate: 258 bytes in two bits."""
STORED, DEFLATED = 0, 8
ENCRYPTED, UTF8 = 0x1, 0x800
DOS, UNIX, MACOS = 0, 3, 19
"""Systems that made an archive, or a member of it."""
FILE_TYPE, REGULAR, FOLDER, LINK = 0xF000, 0x8000, 0x4000, 0xA000
MAX_LINK = 4096
"""Bytes of the longest target of a link that is read."""


class _Directory(NamedTuple):
    """The central directory: ``entries`` entries (modulo ``modulus``) in bytes [begin, end) of the file.

    ``shift`` is the number of bytes before the archive, by which all stated offsets are too small.
    """

    begin: int
    end: int
    entries: int
    modulus: int
    shift: int


def scan(file: RandomAccessFile, archive: str, links: Links) -> Iterator[Locator]:
    """Yields the locators of the zip's regular files, in the order of its directory.

    ``archive`` names the archive in locators and messages. Links are added to ``links``, special files to
    what it passes over. A locator's offset is that of the local header, whose length is known only when it is read; its
    packing is "deflate:METHOD:PACKED SIZE:CRC". Raises SourceError if this is not a zip, is damaged, or has a member
    whose path points outside the archive or that is encrypted or packed by another method. Raises TruncatedSourceError
    if the file begins like a zip but ends without the central directory.
    """
    directory = _find_directory(file, archive)
    position, entry, count, buffer = directory.begin, 0, 0, b""
    stored = 0
    while position < directory.end or entry < len(buffer):
        if position < directory.end and len(buffer) - entry < ENTRY.size + 3 * MAX_COMMENT:
            buffer = buffer[entry:] + file.read(position, min(CHUNK, directory.end - position))
            position, entry = min(position + CHUNK, directory.end), 0
        if len(buffer) - entry < ENTRY.size:
            raise _damaged(archive, count)
        signature, made, flags, method, crc, packed, size, n, m, k, attributes, offset = ENTRY.unpack_from(
            buffer, entry
        )
        name_at, extra_at, end = entry + ENTRY.size, entry + ENTRY.size + n, entry + ENTRY.size + n + m + k
        if signature != b"PK\1\2" or end > len(buffer):
            raise _damaged(archive, count)
        raw, system = buffer[name_at:extra_at], made >> 8
        is_ascii = raw.isascii()
        name = _decode_name(raw, system, bool(flags & UTF8))
        if m and (not is_ascii or size == 0xFFFFFFFF or packed == 0xFFFFFFFF or offset == 0xFFFFFFFF):
            try:
                name, size, packed, offset = _amended(buffer[extra_at : extra_at + m], raw, name, size, packed, offset)
            except struct.error:
                raise _damaged(archive, count) from None
        entry, count = end, count + 1
        if system == DOS:
            name = name.replace("\\", "/")  # some programs on Windows write the wrong separator
        file_type = attributes >> 16 & FILE_TYPE if system in (UNIX, MACOS) else REGULAR
        if name.endswith("/") or file_type == FOLDER:
            links.passed_over.folders.add(normal(name))
            continue
        if _is_outside(name):
            raise SourceError(f"{archive}: member {name!r} points outside the archive; do not use this archive")
        name = normal(name)
        if file_type not in (0, REGULAR, LINK):
            links.passed_over.add(SPECIAL, name)
            continue
        if flags & ENCRYPTED:
            raise SourceError(f"{archive}: member {name!r} is encrypted; decrypt the archive first")
        if method not in (STORED, DEFLATED):
            raise SourceError(
                f"{archive}: member {name!r} is compressed by method {method}, which is not supported; "
                "repack the archive with deflate or without compression"
            )
        offset += directory.shift
        most = packed if method == STORED else packed * MAX_RATIO
        if offset + LOCAL.size + n + packed > directory.begin or size > most or (method == STORED and size != packed):
            raise SourceError(
                f"{archive} is damaged: the size or offset of member {name!r} is impossible; download it again"
            )
        stored += LOCAL.size + n + packed
        if stored > directory.begin:
            raise SourceError(
                f"{archive} is damaged: member {name!r} and those before it are larger than the archive, so they share "
                "bytes; do not use this archive"
            )
        found = Locator(archive, name, offset, size, f"deflate:{method}:{packed}:{crc}")
        if file_type != LINK:
            links.drop(name)
            yield found
        elif size > MAX_LINK:
            links.passed_over.add(DANGLING, name)
        else:
            links.add(name, _target(file, found, archive))
    if count % directory.modulus != directory.entries:
        raise _damaged(archive, count)


def stored_bytes(locator: Locator) -> int:
    """The bytes from the locator's offset on that `unpack` reads."""
    packed = int(locator.packing.split(":")[2])
    return LOCAL.size + len(locator.member.encode("utf-8", "replace")) + SLACK + packed


def unpack(file: RandomAccessFile, locator: Locator) -> bytes:
    """Returns the bytes of a member that ``scan`` found. Raises ImageError if they do not match size and checksum."""
    _, method, stated, crc = locator.packing.split(":")
    packed = int(stated)
    if packed > MAX_BYTES:
        raise ImageError(f"{packed} bytes in the archive are too many for an image")
    data = file.read(locator.offset, LOCAL.size + len(locator.member.encode("utf-8", "replace")) + SLACK + packed)
    if len(data) < LOCAL.size or data[:4] != b"PK\3\4":
        raise ImageError("the archive is damaged: there is no member at the stated offset")
    *_, n, m = LOCAL.unpack_from(data)
    begin = LOCAL.size + n + m
    if len(data) < begin + packed:
        data += file.read(locator.offset + len(data), begin + packed - len(data))
    data = data[begin : begin + packed]
    if int(method) == DEFLATED:
        inflater = zlib.decompressobj(-15)
        try:
            data = inflater.decompress(data, locator.size + 1)  # never more than the stated size
        except zlib.error as error:
            raise ImageError(f"the archive is damaged: the member cannot be inflated ({error})") from None
    if len(data) != locator.size or zlib.crc32(data) != int(crc):
        raise ImageError("the archive is damaged: the member does not have the stated size and checksum")
    return data


def head(file: RandomAccessFile, locator: Locator, size: int) -> bytes:
    """Returns the first ``size`` bytes of a member, or as many as can be read. Checks nothing."""
    _, method, stated, _ = locator.packing.split(":")
    packed = min(int(stated), size + SLACK)  # deflate's largest block without compression adds five bytes
    data = file.read(locator.offset, LOCAL.size + len(locator.member.encode("utf-8", "replace")) + SLACK + packed)
    if len(data) < LOCAL.size:
        return b""
    *_, n, m = LOCAL.unpack_from(data)
    data = data[LOCAL.size + n + m :]
    if int(method) == DEFLATED:
        with contextlib.suppress(zlib.error):
            return zlib.decompressobj(-15).decompress(data, size)
    return data[: min(size, locator.size)]


def _target(file: RandomAccessFile, link: Locator, archive: str) -> str:
    try:
        return decode_name(unpack(file, link))
    except ImageError as error:
        raise SourceError(f"{archive}: link {link.member!r}: {error}; download it again") from None


def _decode_name(raw: bytes, system: int, is_utf8: bool) -> str:
    # Appendix D says code page 437 unless the flag is set, but programs on Unix store a name's bytes as they are.
    if is_utf8 or system in (UNIX, MACOS):
        return decode_name(raw)
    return raw.decode("cp437")


def _find_directory(file: RandomAccessFile, archive: str) -> _Directory:
    # The end record is at the end of the file, before an optional comment, which may itself contain the signature.
    tail_at = max(0, file.size - END.size - MAX_COMMENT)
    tail = file.read(tail_at, END.size + MAX_COMMENT)
    found = tail.rfind(b"PK\5\6")
    while found >= 0 and not (
        found + END.size <= len(tail) and found + END.size + END.unpack_from(tail, found)[-1] == len(tail)
    ):
        found = tail.rfind(b"PK\5\6", 0, found + 3)
    if found < 0:
        if file.read(0, 4) == b"PK\3\4":
            raise TruncatedSourceError(
                f"{archive} is truncated: it ends at byte {file.size} without the directory that ends a zip archive; "
                "download it again"
            )
        raise SourceError(f"{archive} is not a zip archive; download it again")
    _, volume, first, here, entries, size, offset, _ = END.unpack_from(tail, found)
    end, modulus, volumes = tail_at + found, 1 << 16, 1  # writers without zip64 let the count overflow
    marker = file.read(max(0, end - LOCATOR64.size), LOCATOR64.size) if end >= LOCATOR64.size else b""
    if marker[:4] == b"PK\6\7":
        _, _, stated, volumes = LOCATOR64.unpack(marker)
        # The stated offset is wrong if there are bytes before the archive. The record usually ends where its locator
        # begins, so look there first.
        for at in (end - LOCATOR64.size - END64.size, stated):
            record = file.read(at, END64.size) if 0 <= at < end else b""
            if len(record) == END64.size and record[:4] == b"PK\6\6":
                break
        else:
            raise SourceError(f"{archive} is damaged: its zip64 end record is missing; download it again")
        _, _, _, _, volume, first, here, entries, size, offset = END64.unpack(record)
        end, modulus = at, 1 << 64
    if volume or first or volumes > 1 or here != entries:
        raise SourceError(f"{archive} is one volume of several; join them first (zip -s 0)")
    shift = end - size - offset
    if shift < 0:
        raise SourceError(f"{archive} is damaged: the offset of its directory is impossible; download it again")
    return _Directory(end - size, end, entries, modulus, shift)


def _amended(extra: bytes, raw: bytes, name: str, size: int, packed: int, offset: int) -> tuple[str, int, int, int]:
    """Returns name, sizes and offset as amended by an entry's extra fields: zip64 (4.5.3), Unicode path (4.6.9)."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        field = extra[at + 4 : at + 4 + length]
        at += 4 + length
        if kind == 1:
            values, position = [size, packed, offset], 0
            for i, value in enumerate(values):
                if value == 0xFFFFFFFF:  # only values that did not fit into 32 bits are present, in this order
                    (values[i],) = struct.unpack_from("<Q", field, position)
                    position += 8
            size, packed, offset = values
        elif kind == 0x7075 and len(field) > 5 and struct.unpack_from("<BL", field) == (1, zlib.crc32(raw)):
            name = decode_name(field[5:])
    return name, size, packed, offset


def _is_outside(name: str) -> bool:
    # Windows paths too; some readers end a name at a NUL.
    return (
        name[:1] in ("", "/")
        or name[1:2] == ":"
        or "\\" in name
        or "\0" in name
        or (".." in name and ".." in name.split("/"))
    )


def _damaged(archive: str, count: int) -> SourceError:
    return SourceError(f"{archive} is damaged: its directory ends after {count} members; download it again")
