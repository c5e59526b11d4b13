"""A data set's files by name, whether they lie in a folder, in a tar or in a zip: sources need not care which."""

from __future__ import annotations

import os

from imgtool.pipelines.archives import tar
from imgtool.pipelines.archives import zip as zips
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.records import Locator
from imgtool.pipelines.storage.folders import join, open_folder
from imgtool.wordnet.errors import ImageError, SourceError, TruncatedSourceError


class Tree:
    """The files below ``root`` (a path or URL), or in an ``archive`` there (.tar or .zip), by their path with forward
    slashes.

    ``truncated`` holds the message of a tar that ended early; its whole members are there. A zip that ended early has
    lost its directory: it raises TruncatedSourceError.
    """

    def __init__(self, root: str, archive: str | None = None) -> None:
        self.path = root if archive is None else join(root, archive)
        self.root = root
        self.truncated: str | None = None
        folder = open_folder(root)
        if archive is None:
            files = {name: Locator(name, "", 0, size) for name, size in folder.walk()}
        else:
            files = {}
            file = folder.open(archive)
            try:
                if archive.endswith(".zip"):
                    # macOS puts its own attributes of every file beside the files, in a folder of that name
                    files = {m.member: m for m in zips.scan(file, archive) if not m.member.startswith("__MACOSX/")}
                else:
                    for member in tar.scan(file, archive):
                        files[member.name] = Locator(archive, member.name, member.offset, member.size)
            except TruncatedSourceError as error:
                if not files:
                    raise
                self.truncated = str(error)
            finally:
                file.close()
        self.files = _without_common_folder(files)

    def read_text(self, name: str) -> str:
        """A small text file, as UTF-8. Raises SourceError if its archive is damaged there."""
        with LocatorReader(self.root) as reader:
            try:
                return reader.read(self.files[name]).decode("utf-8", "replace")
            except ImageError as error:
                raise SourceError(f"{self.path}: {name}: {error}") from None


def _without_common_folder(files: dict[str, Locator]) -> dict[str, Locator]:
    # tiny-imagenet-200/wnids.txt in a tar is the wnids.txt of a folder
    common = os.path.commonprefix([min(files, default=""), max(files, default="")])  # noqa: RUF071  (of characters is meant)
    top = common.rfind("/") + 1
    return {name[top:]: locator for name, locator in files.items()} if top else files
