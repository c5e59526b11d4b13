"""ImageNet-21k: fall11_whole.tar or winter21_whole.tar, which are tars of class tars, or a folder of class tars."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import ClassVar

from imgtool.pipelines.archives import class_tars, tar
from imgtool.pipelines.records import IMAGE_SUFFIXES, Locator, Record, key_of, sorted_wnids
from imgtool.pipelines.storage.folders import open_folder
from imgtool.pipelines.storage.passed_over import ARCHIVE, ARCHIVES, PassedOver, litter
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

_CLASS_TAR = re.compile(r"(?:.*/)?(n\d{8})\.tar$")


class ImageNet21k:
    """ImageNet-21k, or any set of class tars (n01440764.tar), as the single split train.

    An empty class tar is a class without images.
    """

    layout: ClassVar[str] = "imagenet-21k"
    splits: tuple[str, ...] = ("train",)

    @classmethod
    def recognise(cls, root: str, archive: str | None) -> bool:
        """Whether the first file of the archive, or any file of the folder, is a class tar.

        A class tar beside its class folder is ignored. Raises SourceError if there are class tars and class folders.
        """
        folder = open_folder(root)
        if archive is None:
            names = [name for name, _ in folder.walk("", PassedOver()) if not litter(name)]
            folders = {name.rpartition("/")[0]: name for name in names if name.lower().endswith(IMAGE_SUFFIXES)}
            stems = {name.rpartition("/")[2] for name in folders}
            tars = [name for name in names if (match := _CLASS_TAR.match(name)) and match[1] not in stems]
            if tars and (loose := [name for name in folders.values() if "/" in name]):
                raise SourceError(
                    f"{root}: has class tars ({tars[0]}) and folders of images ({loose[0]}), and only one can be read; "
                    "unpack the tars into class folders, or move them out of the folder"
                )
            return bool(tars)
        with contextlib.closing(folder.open(archive)) as file, contextlib.suppress(TruncatedSourceError):
            for member in tar.scan(file, archive, include_truncated=True):
                return bool(_CLASS_TAR.match(member.name))
        return False

    def __init__(self, root: str, archive: str | None) -> None:
        self.root, self._archive = root, archive
        self._folder = open_folder(root)
        self.ilsvrc2012_ids: dict[str, int] = {}
        self.notes: list[str] = []
        self.passed_over = PassedOver()
        self.wnids = sorted_wnids(self._class_tar_wnids())

    def _class_tar_wnids(self) -> Iterator[str]:
        """Yields the wnids in the class tars' names. The class tars are not opened yet."""
        if self._archive is None:
            yield from (
                match[1]
                for name, _ in self._folder.walk("", PassedOver())
                if not litter(name) and (match := _CLASS_TAR.match(name))
            )
            return
        with contextlib.closing(self._folder.open(self._archive)) as file, contextlib.suppress(TruncatedSourceError):
            for member in tar.scan(file, self._archive, include_truncated=True):
                yield class_tars.wnid_of(member, self._archive)

    def records(self, split: str) -> Iterator[Record]:
        if self._archive is not None:
            with contextlib.closing(self._folder.open(self._archive)) as file:
                for wnid, member in class_tars.scan(
                    file, self._archive, parallel=self._folder.remote, passed_over=self.passed_over
                ):
                    yield Record(key_of(member.name), (wnid,), Locator(self._archive, *member))
            return
        truncated = []
        for name, size in self._folder.walk("", self.passed_over):
            match = _CLASS_TAR.match(name)
            if self.passed_over.add_litter(name):
                continue
            if not match:
                self.passed_over.add(ARCHIVE if name.lower().endswith(ARCHIVES) else "not a class tar", name)
                continue
            if not size:
                continue
            with contextlib.closing(self._folder.open(name)) as file:
                try:
                    for member in tar.scan(file, name, passed_over=self.passed_over):
                        yield Record(key_of(member.name), (match[1],), Locator(name, *member))
                except TruncatedSourceError as error:
                    truncated.append(str(error))
        if truncated:
            raise TruncatedSourceError("; ".join(truncated))
