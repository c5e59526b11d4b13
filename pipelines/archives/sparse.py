"""Sparse members of tars: files whose runs of zeros are not stored. GNU's old format and its pax formats 0.0 to 1.0."""

from __future__ import annotations

from collections.abc import Sequence

from imgtool.pipelines.records import MAX_BYTES, Locator
from imgtool.pipelines.storage.folders import RandomAccessFile
from imgtool.wordnet.errors import ImageError

BLOCK = 512
MAX_MAP = 1 << 20
"""Bytes of the longest map of pieces that is read."""
MAX_SIZE = 1 << 62
"""Sizes and offsets from here on are damage: they fit into no 64-bit integer, or no file."""
KIND = "sparse"


class Damaged(Exception):
    """The map of the pieces is not one."""


def packing(pieces: Sequence[int], stored: int, size: int) -> str:
    """Returns the locator's packing, "sparse:STORED BYTES:OFFSET,LENGTH,…". Raises Damaged for impossible pieces."""
    pairs = list(zip(pieces[::2], pieces[1::2], strict=False))
    ends = [offset + length for offset, length in pairs]
    in_order = all(end <= offset for end, (offset, _) in zip(ends, pairs[1:], strict=False))
    if size >= MAX_SIZE or len(pieces) % 2 or min(pieces, default=0) < 0 or not in_order or max(ends, default=0) > size:
        raise Damaged
    if sum(length for _, length in pairs) > stored:
        raise Damaged
    return f"{KIND}:{stored}:{','.join(map(str, pieces))}"


def stored_bytes(locator: Locator) -> int:
    """The bytes from the locator's offset on that `unpack` reads."""
    return int(locator.packing.split(":")[1])


def unpack(file: RandomAccessFile, locator: Locator) -> bytes:
    """Returns the bytes of a sparse member. Raises ImageError if the archive has become shorter."""
    _, stored, listed = locator.packing.split(":")
    if int(stored) > MAX_BYTES:
        raise ImageError(f"{stored} bytes in the archive are too many for an image")
    data, out, at = file.read(locator.offset, int(stored)), bytearray(locator.size), 0
    if len(data) < int(stored):
        raise ImageError("the archive has become shorter while it was being read")
    pieces = [int(number) for number in listed.split(",") if number]
    for offset, length in zip(pieces[::2], pieces[1::2], strict=True):
        out[offset : offset + length] = data[at : at + length]
        at += length
    return bytes(out)


def old_map(file: RandomAccessFile, header: bytes, at: int, end: int) -> tuple[list[int], int, int]:
    """Reads the map in a GNU header (type S) and in the blocks at ``at`` that continue it.

    Returns the pieces, the file's size, and where the data begins. Raises Damaged.
    """
    fields, more = header[386:482], header[482]
    size = number(header[483:495])
    pieces: list[int] = []
    while True:
        for start in range(0, len(fields) - 23, 24):
            offset, length = number(fields[start : start + 12]), number(fields[start + 12 : start + 24])
            if offset is None or length is None:
                raise Damaged
            if fields[start : start + 24].strip(b"\0"):
                pieces += (offset, length)
        if not more:
            break
        block = file.read(at, BLOCK) if at + BLOCK <= end else b""
        if len(block) < BLOCK or len(pieces) > MAX_MAP // 8:
            raise Damaged
        fields, more, at = block[:504], block[504], at + BLOCK
    if size is None:
        raise Damaged
    return pieces, size, at


def pax_map(file: RandomAccessFile, pax: dict[str, str], at: int, end: int) -> tuple[list[int], int, int]:
    """Reads the map that pax headers state or, in format 1.0, that precedes the data at ``at``.

    Returns the pieces, the file's size, and where the data begins. Raises Damaged.
    """
    try:
        size = _decimal(pax.get("GNU.sparse.realsize") or pax["GNU.sparse.size"])
        if "GNU.sparse.map" in pax:
            return [_decimal(text) for text in pax["GNU.sparse.map"].split(",") if text], size, at
        if pax.get("GNU.sparse.major") != "1":
            raise Damaged
        blocks: list[bytes] = []
        lines, wanted = 0, 1  # decimal numbers, one per line, padded to whole blocks
        while lines < wanted:
            if at + BLOCK > end or len(blocks) * BLOCK > MAX_MAP:
                raise Damaged
            blocks.append(file.read(at, BLOCK))
            at, lines = at + BLOCK, lines + blocks[-1].count(b"\n")
            if wanted == 1 and lines:
                wanted += 2 * _decimal(blocks[0].split(b"\n")[0].decode())  # the first one is the number of pieces
        numbers = [_decimal(line.decode()) for line in b"".join(blocks).split(b"\n")[1:wanted]]
        return numbers, size, at
    except (KeyError, ValueError):
        raise Damaged from None


def _decimal(text: str) -> int:
    value = decimal(text)
    if value is None:
        raise Damaged
    return value


def decimal(text: str) -> int | None:
    """Parses a number of a pax header: up to 18 decimal digits, ASCII alone."""
    return int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else None


def number(field: bytes) -> int | None:
    """Parses a number of a tar header: octal digits, or GNU's base 256 for what has too many of them."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if text.strip(b"01234567"):
        return None
    return int(text, 8) if text else 0
