"""Bounding boxes in ImageNet's format: PASCAL VOC XML, one file per image, in folders or tars."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from imgtool.pipelines.annotations import streams
from imgtool.pipelines.records import Box, key_of, pixel
from imgtool.pipelines.storage.text import decode_text
from imgtool.wordnet.errors import SourceError

MAX_XML = 1 << 20
MAX_BOXES = 1 << 23
MAX_TAR, MAX_UNPACKED, MAX_DEPTH = 1 << 28, 1 << 32, 3
"""Bytes of a tar in a tar, bytes of all unpacked, tars in each other. ILSVRC2012's have 1 MB, 1 GB and 2."""
TARS = (".tar", ".tar.gz", ".tgz")


class BoxAnnotations:
    """Collects bounding boxes from annotation files. ``boxes`` has an image's boxes by its key.

    A file that cannot be parsed is added to ``unreadable``; only its boxes are lost.
    """

    def __init__(self) -> None:
        self.boxes: dict[str, tuple[Box, ...]] = {}
        self.unreadable: list[str] = []
        self._unpacked, self._count = 0, 0

    def add(self, name: str, data: bytes) -> None:
        """Adds the boxes of one annotation file. ``name`` is its path; the key is the base name without suffix."""
        try:
            boxes = parse(data)
        except ValueError:
            self.unreadable.append(name)
            return
        self.boxes[key_of(name)] = boxes
        self._count += len(boxes)
        if self._count > MAX_BOXES:
            raise SourceError(f"{name}: is the annotation with which the boxes become more than {MAX_BOXES:,}")

    def add_tar(self, data: bytes, archive: str) -> None:
        """Adds all XML files of a tar, compressed or not, and of the tars in it. ``archive`` names it in messages.

        Raises SourceError if it is not a tar, is damaged, or holds more than ``MAX_UNPACKED`` bytes.
        """
        try:
            self._add_tar(data, archive, MAX_DEPTH)
        except SourceError as error:
            raise SourceError(f"{archive}: cannot be read ({error}); remove it to continue without boxes") from None

    def _add_tar(self, data: bytes, archive: str, depth: int) -> None:
        if not depth:
            raise SourceError(f"{archive}: has tars in tars in tars; do not use this archive")
        stream = streams.Stream(data, archive, MAX_UNPACKED - self._unpacked)
        for member in streams.members(stream, archive):
            name = member.name.lower()
            if name.endswith(".xml") and member.size > MAX_XML:
                self.unreadable.append(member.name)
            elif name.endswith(".xml"):
                self.add(member.name, streams.content(stream, member, archive))
            elif name.endswith(TARS):
                inside = f"{archive}!{member.name}"
                if member.size > MAX_TAR:
                    raise SourceError(f"{inside}: has {member.size:,} bytes; unpack it first")
                self._add_tar(streams.content(stream, member, archive), inside, depth - 1)
        self._unpacked += stream.check()

    def notes(self) -> list[str]:
        """Returns the lines for the user: one about unreadable files, or none."""
        if not self.unreadable:
            return []
        count, first = len(self.unreadable), self.unreadable[0]
        return [f"{count} annotations cannot be read, the first is {first}: their boxes are left out"]


def parse(data: bytes) -> tuple[Box, ...]:
    """Returns the boxes of one annotation file. Raises ValueError if it is not an annotation."""
    text = decode_text(data).strip()
    # A document type could define entities that expand without bound; after a NUL, expat reads UTF-16.
    if "\0" in text or "<!" in _without_comments(text):
        raise ValueError("a document type or NUL")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    boxes = []
    for item in root.iter("object"):
        corners = [item.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        xmin, ymin, xmax, ymax = (pixel(corner or "") for corner in corners)
        boxes.append(Box((item.findtext("name") or "").strip(), xmin, ymin, xmax, ymax))
    return tuple(boxes)


def _without_comments(text: str) -> str:
    parts = []
    while True:
        before, comment, text = text.partition("<!--")
        parts.append(before)
        _, end, text = text.partition("-->")
        if not comment or not end:
            return "".join(parts) + comment
