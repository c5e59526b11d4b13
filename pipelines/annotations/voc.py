"""Bounding boxes in ImageNet's format: PASCAL VOC XML, one file per image, in folders or tars."""

from __future__ import annotations

import io
import re
import tarfile
import xml.etree.ElementTree as ElementTree

from imgtool.pipelines.records import Box, key_of
from imgtool.pipelines.storage.text import decode_text
from imgtool.wordnet.errors import SourceError

MAX_XML = 1 << 20
TARS = (".tar", ".tar.gz", ".tgz")


class BoxAnnotations:
    """Collects bounding boxes from annotation files. ``boxes`` has an image's boxes by its key.

    A file that cannot be parsed is added to ``unreadable``; only its boxes are lost.
    """

    def __init__(self) -> None:
        self.boxes: dict[str, tuple[Box, ...]] = {}
        self.unreadable: list[str] = []

    def add(self, name: str, data: bytes) -> None:
        """Adds the boxes of one annotation file. ``name`` is its path; the key is the base name without suffix."""
        try:
            self.boxes[key_of(name)] = parse(data)
        except ValueError:
            self.unreadable.append(name)

    def add_tar(self, data: bytes, archive: str) -> None:
        """Adds all XML files of a tar, compressed or not, and of the tars in it. ``archive`` names it in messages.

        Raises SourceError if it is not a tar.
        """
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as opened:
                for member in opened:
                    if not member.isfile() or not member.name.lower().endswith((".xml", *TARS)):
                        continue
                    file = opened.extractfile(member)
                    assert file is not None, "a regular file"
                    if not member.name.lower().endswith(".xml"):
                        self.add_tar(file.read(), f"{archive}!{member.name}")
                    elif member.size > MAX_XML:
                        self.unreadable.append(member.name)
                    else:
                        self.add(member.name, file.read())
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise SourceError(
                f"{archive}: cannot be read ({error}); download it again, or remove it to continue without boxes"
            ) from error

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
    if "\0" in text or "<!" in re.sub("<!--.*?-->", "", text, flags=re.DOTALL):
        raise ValueError("a document type or NUL")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    boxes = []
    for item in root.iter("object"):
        corners = [item.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        xmin, ymin, xmax, ymax = (_pixel(corner) for corner in corners)
        boxes.append(Box((item.findtext("name") or "").strip(), xmin, ymin, xmax, ymax))
    return tuple(boxes)


def _pixel(text: str | None) -> int:
    value = int(float(text or ""))  # some tools write 12.0
    if abs(value) >= 1 << 31:
        raise ValueError(text)
    return value
