"""Zip archives indexed in place: where each member lies, from the central directory alone, and reading one member.

Our own reader because zipfile takes a gigabyte and thrice as long for the 1.3 million members of Kaggle's archive.
The format: PKWARE's APPNOTE.TXT 6.3.10 (4.3 records, 4.5 extra fields, Appendix D names). Members are stored or
deflated; zip64, comments and bytes before the archive (self-extractors) are read. Encrypted members, other methods and
archives of several volumes are refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from imgtool.pipelines.records import MAX_BYTES, Locator
from imgtool.pipelines.storage.folders import RandomFile
from imgtool.wordnet.errors import ImageError, SourceError, TruncatedSourceError

LOCAL = struct.Struct("<4s5H3L2H")  # signature, version, flags, method, time, date, crc, packed, size, name, extra
ENTRY = struct.Struct("<4sH2x2H4x3L3H4x2L")  # …, lengths of name, extra, comment, then attributes, local offset
END = struct.Struct("<4s4H2LH")  # signature, volumes, entries here and in all, size and offset of them, comment length
LOCATOR64 = struct.Struct("<4sLQL")  # signature, volume, offset of END64, number of volumes
END64 = struct.Struct("<4sQ2H2L4Q")
MAX_COMMENT = 0xFFFF
CHUNK = 8 << 20
"""Bytes of the directory read at once; above the largest entry (three fields of 64 KiB)."""
SLACK = 128
"""Bytes read beyond name and data, for a local header's extra fields, so that one read is enough."""
MAX_RATIO = 1032
"""Deflate's best: 258 bytes in two bits."""
STORED, DEFLATED = 0, 8
ENCRYPTED, UTF8 = 0x1, 0x800
UNIX, LINK = 3, 0xA000


class _Directory(NamedTuple):
    """Bytes [begin, end) hold ``entries`` entries (modulo ``modulus``); ``shift``: bytes before the archive."""

    begin: int
    end: int
    entries: int
    modulus: int
    shift: int


def scan(file: RandomFile, where: str) -> Iterator[Locator]:
    """Yields the regular files of the zip in its directory's order; of several by one name the last one counts.

    ``where`` is the archive's name in locators and messages. A locator's offset is that of the local header, whose
    length shows only when it is read; its packing is "deflate:METHOD:PACKED SIZE:CRC". Directories and links are passed
    over. Raises SourceError for what is no zip, is damaged, has a member named outside its folder or packed in a way
    not read here, and TruncatedSourceError if it begins like a zip and its end, where the directory lies, is missing.
    """
    directory = _find_directory(file, where)
    at, place, count, buffer = directory.begin, 0, 0, b""
    while at < directory.end or place < len(buffer):
        if at < directory.end and len(buffer) - place < ENTRY.size + 3 * MAX_COMMENT:
            buffer = buffer[place:] + file.read(at, min(CHUNK, directory.end - at))
            at, place = min(at + CHUNK, directory.end), 0
        if len(buffer) - place < ENTRY.size:
            raise _damaged(where, count)
        signature, made, flags, method, crc, packed, size, n, m, k, attributes, offset = ENTRY.unpack_from(
            buffer, place
        )
        name_at, extra_at, end = place + ENTRY.size, place + ENTRY.size + n, place + ENTRY.size + n + m + k
        if signature != b"PK\1\2" or end > len(buffer):
            raise _damaged(where, count)
        raw = buffer[name_at:extra_at]
        plain = raw.isascii()
        name = raw.decode("utf-8", "surrogateescape") if plain or flags & UTF8 else raw.decode("cp437")
        if m and (not plain or size == 0xFFFFFFFF or packed == 0xFFFFFFFF or offset == 0xFFFFFFFF):
            try:
                name, size, packed, offset = _extra(buffer[extra_at : extra_at + m], raw, name, size, packed, offset)
            except struct.error:
                raise _damaged(where, count) from None
        place, count = end, count + 1
        if name.endswith("/") or (made >> 8 == UNIX and attributes >> 16 & 0xF000 == LINK):
            continue
        if _is_outside(name):
            raise SourceError(f"{where}: member {name!r} points outside the archive; refused")
        if flags & ENCRYPTED:
            raise SourceError(f"{where}: member {name!r} is encrypted")
        if method not in (STORED, DEFLATED):
            raise SourceError(f"{where}: member {name!r} is packed by method {method}; only deflate is read")
        offset += directory.shift
        most = packed if method == STORED else packed * MAX_RATIO
        if offset + LOCAL.size + n + packed > directory.begin or size > most or (method == STORED and size != packed):
            raise SourceError(f"{where}: member {name!r} is said to lie where it cannot; the archive is damaged")
        yield Locator(where, name, offset, size, f"deflate:{method}:{packed}:{crc}")
    if count % directory.modulus != directory.entries:
        raise _damaged(where, count)


def unpack(file: RandomFile, locator: Locator) -> bytes:
    """The bytes of a member that ``scan`` found, in one read. Raises ImageError if they are not what it states."""
    _, method, stated, crc = locator.packing.split(":")
    packed = int(stated)
    if packed > MAX_BYTES:
        raise ImageError(f"{packed} bytes in the archive are too many for an image")
    data = file.read(locator.offset, LOCAL.size + len(locator.member.encode("utf-8", "replace")) + SLACK + packed)
    if len(data) < LOCAL.size or data[:4] != b"PK\3\4":
        raise ImageError("the archive is damaged: there is no member at this place")
    *_, n, m = LOCAL.unpack_from(data)
    begin = LOCAL.size + n + m
    if len(data) < begin + packed:
        data += file.read(locator.offset + len(data), begin + packed - len(data))
    data = data[begin : begin + packed]
    if int(method) == DEFLATED:
        inflater = zlib.decompressobj(-15)
        try:
            data = inflater.decompress(data, locator.size + 1)  # never more than what it is said to hold
        except zlib.error as error:
            raise ImageError(f"the archive is damaged: the member cannot be inflated ({error})") from None
    if len(data) != locator.size or zlib.crc32(data) != int(crc):
        raise ImageError("the archive is damaged: the member's size and checksum are not those stated")
    return data


def _find_directory(file: RandomFile, where: str) -> _Directory:
    # The end record is the last thing in the file, but for a comment that may itself contain its signature.
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
                f"{where} is truncated: it ends at byte {file.size} without the directory that ends a zip archive; "
                "download it again"
            )
        raise SourceError(f"{where} is not a zip archive")
    _, volume, first, here, entries, size, offset, _ = END.unpack_from(tail, found)
    end, modulus, volumes = tail_at + found, 1 << 16, 1  # writers that know no zip64 let the count overflow
    marker = file.read(max(0, end - LOCATOR64.size), LOCATOR64.size) if end >= LOCATOR64.size else b""
    if marker[:4] == b"PK\6\7":
        _, _, stated, volumes = LOCATOR64.unpack(marker)
        # Bytes before the archive shift what is stated; the record usually ends where its locator begins.
        for at in (end - LOCATOR64.size - END64.size, stated):
            record = file.read(at, END64.size) if 0 <= at < end else b""
            if len(record) == END64.size and record[:4] == b"PK\6\6":
                break
        else:
            raise SourceError(f"{where}: its zip64 end record is missing; the archive is damaged")
        _, _, _, _, volume, first, here, entries, size, offset = END64.unpack(record)
        end, modulus = at, 1 << 64
    if volume or first or volumes > 1 or here != entries:
        raise SourceError(f"{where} is one volume of several; join them first (zip -s 0)")
    shift = end - size - offset
    if shift < 0:
        raise SourceError(f"{where}: its directory is said to lie where it cannot; the archive is damaged")
    return _Directory(end - size, end, entries, modulus, shift)


def _extra(extra: bytes, raw: bytes, name: str, size: int, packed: int, offset: int) -> tuple[str, int, int, int]:
    """Name, sizes and offset as an entry's extra fields amend them: zip64 (4.5.3) and Unicode path (4.6.9)."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        field = extra[at + 4 : at + 4 + length]
        at += 4 + length
        if kind == 1:
            values, place = [size, packed, offset], 0
            for i, value in enumerate(values):
                if value == 0xFFFFFFFF:  # only those that did not fit are there, in this order
                    (values[i],) = struct.unpack_from("<Q", field, place)
                    place += 8
            size, packed, offset = values
        elif kind == 0x7075 and len(field) > 5 and struct.unpack_from("<BL", field) == (1, zlib.crc32(raw)):
            name = field[5:].decode("utf-8", "surrogateescape")
    return name, size, packed, offset


def _is_outside(name: str) -> bool:
    # also by the ways of Windows; a NUL would end the name for some readers
    return (
        name[:1] in ("", "/")
        or name[1:2] == ":"
        or "\\" in name
        or "\0" in name
        or (".." in name and ".." in name.split("/"))
    )


def _damaged(where: str, count: int) -> SourceError:
    return SourceError(f"{where}: its directory breaks off behind {count} members; the archive is damaged")
