"""The pages of a parquet column: their headers, levels and dictionary indices.

Facts: parquet-format's parquet.thrift (PageHeader and what is in it), Thrift's compact protocol
(thrift-compact-protocol.md), and parquet-format's Encodings.md (plain, and the RLE/bit-packing hybrid).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

DATA, INDEX, DICTIONARY, DATA_V2 = range(4)
ENCODINGS = [
    *("PLAIN", "GROUP_VAR_INT", "PLAIN_DICTIONARY", "RLE", "BIT_PACKED", "DELTA_BINARY_PACKED"),
    *("DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY", "RLE_DICTIONARY", "BYTE_STREAM_SPLIT"),
]
MAX_DEPTH = 16


class Damaged(Exception):
    """Bytes that are not what they are said to be."""


class TooShort(Damaged):
    """The bytes end within a header: perhaps more have to be read."""


class PageHeader(NamedTuple):
    """``size`` bytes of header, then ``packed`` bytes that hold ``unpacked`` ones with ``values`` values and nulls.

    ``levels`` bytes of definition levels lie in front of a page of version 2, never packed.
    """

    size: int
    kind: int
    packed: int
    unpacked: int
    values: int
    encoding: str
    level_encoding: str
    levels: int
    is_packed: bool


def page_header(data: bytes) -> PageHeader:
    """Reads the header that ``data`` begins with. Raises TooShort or Damaged."""
    fields, size = _struct(data, 0, 0)
    kind, unpacked, packed = (_natural(fields, i, None) for i in (1, 2, 3))
    if kind > DATA_V2:
        raise Damaged(f"a page is of the unknown type {kind}")
    inner = fields.get({DATA: 5, INDEX: 6, DICTIONARY: 7, DATA_V2: 8}[kind], {})
    if not isinstance(inner, dict):
        raise Damaged("a page header is invalid")
    encoding = _name(_natural(inner, 4 if kind == DATA_V2 else 2, 0))
    level_encoding = _name(_natural(inner, 3, 0)) if kind == DATA else "RLE"
    levels = _natural(inner, 5, 0) if kind == DATA_V2 else 0
    if levels > min(packed, unpacked) or (kind == DATA_V2 and inner.get(6)):
        raise Damaged("a page header states an impossible size of levels")
    values = _natural(inner, 1, 0)
    return PageHeader(size, kind, packed, unpacked, values, encoding, level_encoding, levels, bool(inner.get(7, True)))


def _natural(fields: dict[int, Any], number: int, default: int | None) -> int:
    value = fields.get(number, default)
    if type(value) is not int or not 0 <= value < 1 << 31:  # a boolean is an int too
        raise Damaged("a page header is invalid")
    return value


def _name(encoding: int) -> str:
    return ENCODINGS[encoding] if encoding < len(ENCODINGS) else str(encoding)


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """A struct's fields by their number, and where it ends. Integers and structs are kept, the rest is passed over."""
    fields: dict[int, Any] = {}
    number = 0
    if depth > MAX_DEPTH:
        raise Damaged("a page header is nested too deeply")
    while True:
        head = _byte(data, at)
        at += 1
        if head == 0:
            return fields, at
        if head >> 4:
            number += head >> 4
        else:
            number, at = _zigzag(data, at)
        fields[number], at = _value(data, at, head & 15, depth)


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # a field's true and false are in its type
        return kind == 1, at
    if kind == 3:
        return None, at + 1
    if kind in (4, 5, 6):
        return _zigzag(data, at)
    if kind == 7:
        return None, at + 8
    if kind == 8:
        length, at = _varint(data, at)
        if at + length > len(data):
            raise TooShort
        return None, at + length
    if kind in (9, 10):
        head = _byte(data, at)
        count, at = (head >> 4, at + 1) if head >> 4 < 15 else _varint(data, at + 1)
        for _ in range(count):
            # in a list a boolean takes a byte
            _, at = (None, at + 1) if head & 15 in (1, 2) else _value(data, at, head & 15, depth + 1)
            if at > len(data):
                raise TooShort
        return None, at
    if kind == 12:
        return _struct(data, at, depth + 1)
    raise Damaged(f"a page header has a field of the unknown type {kind}")


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise TooShort
    return data[at]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = _byte(data, at)
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise Damaged("a number has more than 64 bits")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return value >> 1 ^ -(value & 1), at


def hybrid(data: bytes, width: int, count: int) -> npt.NDArray[np.int64]:
    """``count`` numbers of ``width`` bits, in runs of one number or packed by eight. Raises Damaged if fewer."""
    if width > 32:
        raise Damaged(f"a page has indices of {width} bits")
    runs: list[npt.NDArray[np.int64]] = []
    at, left = 0, count
    weights = np.int64(1) << np.arange(width, dtype=np.int64)
    while left > 0:
        head, at = _varint(data, at)
        length = head >> 1
        if head & 1:
            length = min(length, -(-left // 8)) * 8
            stop = at + length // 8 * width
            if stop > len(data):
                raise Damaged("a run of indices is truncated")
            bits = np.unpackbits(np.frombuffer(data, np.uint8, stop - at, at), bitorder="little")
            numbers = bits.reshape(length, width) @ weights if width else np.zeros(length, np.int64)
            at += (head >> 1) * width
        else:
            stop = at + (width + 7) // 8
            if stop > len(data):
                raise Damaged("a run of indices is truncated")
            numbers = np.full(min(length, left), int.from_bytes(data[at:stop], "little"), np.int64)
            at = stop
        if not length:
            raise Damaged("a run of indices is empty")
        runs.append(numbers[:left])
        left -= len(runs[-1])
    return np.concatenate(runs) if runs else np.zeros(0, np.int64)


def present(levels: bytes, max_level: int, count: int) -> npt.NDArray[np.bool_]:
    """Which of ``count`` values are not null."""
    found: npt.NDArray[np.bool_] = hybrid(levels, max_level.bit_length(), count) == max_level
    return found
