"""Bounding boxes as ImageNet's annotations have them: PASCAL VOC's XML, a file an image, loose or in tars."""

from __future__ import annotations

import io
import tarfile
import xml.etree.ElementTree as ElementTree

from imgtool.pipelines.records import Box, key_of
from imgtool.wordnet.errors import SourceError

MAX_XML = 1 << 20
TARS = (".tar", ".tar.gz", ".tgz")


class Annotations:
    """Boxes by an image's key. A file that cannot be read costs its boxes alone: ``damaged`` names it."""

    def __init__(self) -> None:
        self.boxes: dict[str, tuple[Box, ...]] = {}
        self.damaged: list[str] = []

    def add(self, name: str, data: bytes) -> None:
        """Takes an annotation; ``name`` is its path, whose base is the image's key."""
        try:
            self.boxes[key_of(name)] = parse(data)
        except ValueError:
            self.damaged.append(name)

    def add_tar(self, data: bytes, where: str) -> None:
        """Takes all XML files of a tar, compressed or not, and of the tars in it. SourceError if it is none."""
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                for member in archive:
                    if not member.isfile() or not member.name.lower().endswith((".xml", *TARS)):
                        continue
                    file = archive.extractfile(member)
                    assert file is not None, "a regular file"
                    if not member.name.lower().endswith(".xml"):
                        self.add_tar(file.read(), f"{where}!{member.name}")
                    elif member.size > MAX_XML:
                        self.damaged.append(member.name)
                    else:
                        self.add(member.name, file.read())
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise SourceError(f"{where}: cannot be read ({error}); download it again or take it away") from error

    def notes(self) -> list[str]:
        """What to tell the user."""
        if not self.damaged:
            return []
        return [
            f"{len(self.damaged)} annotations cannot be read, the first is {self.damaged[0]}: their boxes are left out"
        ]


def parse(data: bytes) -> tuple[Box, ...]:
    """The boxes of one annotation. Raises ValueError for what is none."""
    if b"<!" in data:  # a document type could define entities that grow without bound; annotations have none
        raise ValueError("a document type or comment")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError) as error:  # LookupError: an encoding that is not known
        raise ValueError(str(error)) from None
    boxes = []
    for item in root.iter("object"):
        corners = [item.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        xmin, ymin, xmax, ymax = (_pixel(corner) for corner in corners)
        boxes.append(Box((item.findtext("name") or "").strip(), xmin, ymin, xmax, ymax))
    return tuple(boxes)


def _pixel(text: str | None) -> int:
    value = int(float(text or ""))  # a few tools write 12.0
    if abs(value) >= 1 << 31:
        raise ValueError(text)
    return value
