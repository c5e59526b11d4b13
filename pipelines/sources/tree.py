"""A data set's files by name, whether they lie in a folder or in a tar: sources need not care which."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from imgtool.pipelines.records import Locator, LocatorReader
from imgtool.pipelines.sources import tar
from imgtool.wordnet.errors import TruncatedSourceError


class Tree:
    """The files below a folder, or in a tar, by their path with forward slashes.

    ``truncated`` holds the message of a tar that ended early; its whole members are there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.truncated: str | None = None
        if path.is_dir():
            self.root = str(path)
            files = {name: Locator(name, "", 0, size) for name, size in _walk(self.root, "")}
        else:
            self.root = str(path.parent)
            files = {}
            descriptor = os.open(path, os.O_RDONLY)
            try:
                for member in tar.scan(descriptor, path.name):
                    files[member.name] = Locator(path.name, member.name, member.offset, member.size)
            except TruncatedSourceError as error:
                self.truncated = str(error)
            finally:
                os.close(descriptor)
        self.files = _without_common_folder(files)

    def read_text(self, name: str) -> str:
        """A small text file, as UTF-8."""
        with LocatorReader(self.root) as reader:
            return reader.read(self.files[name]).decode("utf-8", "replace")


def _walk(root: str, below: str) -> Iterator[tuple[str, int]]:
    with os.scandir(os.path.join(root, below)) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            name = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir():
                yield from _walk(root, name)
            elif entry.is_file():
                yield name, entry.stat().st_size


def _without_common_folder(files: dict[str, Locator]) -> dict[str, Locator]:
    # tiny-imagenet-200/wnids.txt in a tar is the wnids.txt of a folder
    while files:
        tops = {name.partition("/")[0] for name in files}
        if len(tops) != 1 or any("/" not in name for name in files):
            break
        (top,) = tops
        files = {name[len(top) + 1 :]: locator for name, locator in files.items()}
    return files
