"""What a source yields: a record names a picture, its classes and where its bytes lie. It does not hold the bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from imgtool.wordnet.errors import SourceError


class Locator(NamedTuple):
    """Where a picture's bytes lie: ``size`` bytes at ``offset`` of ``file`` (relative to the source's root).

    ``member`` names it inside an archive (``n01440764.tar/n01440764_18.JPEG``) and is empty for a plain file.
    """

    file: str
    member: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.file}!{self.member}@{self.offset}+{self.size}" if self.member else self.file


class Box(NamedTuple):
    """A bounding box in pixels of the source picture; xmax and ymax as the source states them."""

    wnid: str
    xmin: int
    ymin: int
    xmax: int
    ymax: int


class Record(NamedTuple):
    """One picture of a source. ``wnids`` are its classes, the first one the label."""

    key: str
    wnids: tuple[str, ...]
    locator: Locator
    boxes: tuple[Box, ...] = ()


class LocatorReader:
    """Reads the bytes of locators below ``root``, keeping the files of the last few archives open."""

    MAX_OPEN = 64

    def __init__(self, root: str) -> None:
        self.root = root
        self._open: dict[str, int] = {}

    def read(self, locator: Locator) -> bytes:
        """The picture's bytes. Raises SourceError if the file is gone or has become shorter."""
        try:
            descriptor = self._descriptor(locator)
            data = os.pread(descriptor, locator.size, locator.offset)
            while len(data) < locator.size:  # a pread returns at most 2 GiB, or less on a network disk
                more = os.pread(descriptor, locator.size - len(data), locator.offset + len(data))
                if not more:
                    raise SourceError(f"{locator}: the file has become shorter while it was being read")
                data += more
        except OSError as error:
            raise SourceError(f"{os.path.join(self.root, locator.file)}: {error.strerror}") from error
        if not locator.member:
            # A plain file is read once: thousands of open files would meet the process's limit.
            os.close(self._open.pop(locator.file))
        return data

    def _descriptor(self, locator: Locator) -> int:
        if locator.file not in self._open:
            while len(self._open) >= self.MAX_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[locator.file] = os.open(os.path.join(self.root, locator.file), os.O_RDONLY)
        return self._open[locator.file]

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def __enter__(self) -> LocatorReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def key_of(name: str) -> str:
    """A sample's key: its original file name without folders and ending, ILSVRC2012_val_00000001."""
    return os.path.splitext(os.path.basename(name))[0]


def sorted_wnids(wnids: Iterable[str]) -> list[str]:
    """The one class order used inside: sorted wnids, each once; class index = position."""
    return sorted(set(wnids))
