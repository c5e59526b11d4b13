"""Reads an array of structures from a MATLAB file of level 5, such as the development kit's meta.mat.

scipy.io.loadmat is not used because a damaged file can make it crash. The format is that of MathWorks' document
"MAT-File Format": a header of 128 bytes, then elements of a type, a length and that many bytes, padded to 8 bytes. An
array is an element that consists of elements: flags, dimensions, name, values.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence

MAX_BYTES = 64 << 20
"""Bytes of a decompressed element. Those of the development kit have 2 MB."""
HEADER = 128
MATRIX, COMPRESSED = 14, 15
STRUCTURE, TEXT = 2, 4
NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
"""Formats of numbers and encodings of texts by an element's type."""

Value = float | str
Element = tuple[int, memoryview]
"""An element's type and bytes."""


def read_structures(data: bytes, name: str, fields: Sequence[str]) -> list[dict[str, Value]]:
    """Returns these fields of each structure of the array ``name``: a text, or a number.

    Raises ValueError if the file has no such array or is damaged.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("is not a MATLAB file of level 5")
    elements = _Elements(memoryview(data)[HEADER:], order)
    while elements.left:
        kind, content = elements.next()
        if kind == COMPRESSED:
            kind, content = _Elements(memoryview(_inflate(content)), order).next()
        if kind == MATRIX and (found := _structures(_Elements(content, order), name, fields)) is not None:
            return found
    raise ValueError(f"has no array of structures {name}")


class _Elements:
    """The elements that follow each other in ``data``."""

    def __init__(self, data: memoryview, order: str) -> None:
        self.left, self.order = data, order

    def next(self) -> Element:
        if len(self.left) < 8:
            raise ValueError("ends within an element")
        kind, size = struct.unpack_from(f"{self.order}2I", self.left)
        begin, length = 8, size
        if kind >> 16:  # at most four bytes are in the tag itself
            kind, length, begin, size = kind & 0xFFFF, kind >> 16, 4, 4
        elif kind != COMPRESSED:
            size += -size % 8
        if length > size or begin + length > len(self.left):
            raise ValueError("has an element that is longer than the file")
        content = self.left[begin : begin + length]
        self.left = self.left[begin + size :]
        return kind, content

    def numbers(self) -> tuple[float, ...]:
        kind, content = self.next()
        if kind not in NUMBERS:
            raise ValueError(f"has numbers of the unknown type {kind}")
        count = len(content) // struct.calcsize(NUMBERS[kind])
        return struct.unpack_from(f"{self.order}{count}{NUMBERS[kind]}", content)


def _inflate(content: memoryview) -> bytes:
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(content, MAX_BYTES)
    except zlib.error as error:
        raise ValueError(f"cannot be decompressed ({error})") from None
    if not inflater.eof:
        raise ValueError(f"has a compressed element that is truncated or has more than {MAX_BYTES:,} bytes")
    return data


def _structures(array: _Elements, name: str, fields: Sequence[str]) -> list[dict[str, Value]] | None:
    """Returns the fields of each structure of an array; None if it is another array."""
    kind, dimensions, found = _head(array)
    if kind != STRUCTURE or found != name:
        return None
    (width,) = array.numbers()
    _, raw = array.next()
    if not 0 < width <= len(raw):
        raise ValueError("has fields without names")
    names = [bytes(raw[i : i + int(width)]).split(b"\0")[0].decode("latin-1") for i in range(0, len(raw), int(width))]
    if missing := [field for field in fields if field not in names]:
        raise ValueError(f"its structures have no field {missing[0]}")
    count = math.prod(dimensions)
    if not 0 <= count * len(names) <= len(array.left) // 8:
        raise ValueError("states more structures than it has bytes")
    out = []
    for _ in range(int(count)):
        contents = {field: array.next() for field in names}
        out.append({field: _value(*contents[field], array.order) for field in fields})
    return out


def _head(array: _Elements) -> tuple[int, tuple[float, ...], str]:
    """Returns the class, dimensions and name of an array."""
    flags = array.numbers()
    if not flags:
        raise ValueError("has an array without flags")
    dimensions = array.numbers()
    _, name = array.next()
    return int(flags[0]) & 0xFF, dimensions, bytes(name).decode("latin-1")


def _value(kind: int, content: memoryview, order: str) -> Value:
    """Returns the text or the one number in an array."""
    if kind != MATRIX:
        raise ValueError("has a field that is not an array")
    array = _Elements(content, order)
    of, _, _ = _head(array)
    if of != TEXT:
        (number,) = array.numbers() if array.left else (math.nan,)
        return number
    kind, content = array.next()
    if kind not in TEXTS:
        raise ValueError(f"has a text of the unknown type {kind}")
    encoding = TEXTS[kind] + ("-le" if order == "<" else "-be") * (kind in (4, 17, 18))
    return bytes(content).decode(encoding)
