"""ILSVRC2012 as downloaded: a tar of class tars, a flat validation tar, the development kit. Read in place."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import ClassVar

from imgtool.pipelines.records import Locator, Record, key_of, sorted_wnids
from imgtool.pipelines.sources import class_tars, tar
from imgtool.pipelines.sources.devkit import DEVKITS, Devkit, find_devkit, read_devkit
from imgtool.pipelines.storage import join, open_folder
from imgtool.wordnet import orders
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"


class ILSVRC2012:
    """A folder that holds the ILSVRC2012 archives; either of train and val may be absent.

    The classes are the devkit's leaves. Without a devkit they are the 1000 published ones if every class tar is among
    those, else the class tars' own names; validation pictures cannot be labelled without one.
    """

    layout: ClassVar[str] = "ilsvrc2012"

    @classmethod
    def recognise(cls, root: str) -> bool:
        folder = open_folder(root)
        return any(folder.size(name) is not None for name in (TRAIN, VAL))

    def __init__(self, root: str) -> None:
        self.root = root
        self._folder = folder = open_folder(root)
        devkit = find_devkit(folder)
        if devkit is None and folder.size(VAL) is not None:
            raise SourceError(f"{join(root, VAL)} has no labels of its own: put {DEVKITS[0]} beside it")
        self._devkit = read_devkit(folder, devkit) if devkit else Devkit({}, [])
        self.ilsvrc2012_ids = self._devkit.ids
        self.splits = tuple(s for s, name in (("train", TRAIN), ("val", VAL)) if folder.size(name) is not None)
        self.wnids = sorted_wnids(self._devkit.ids) or self._wnids_without_devkit()

    def records(self, split: str) -> Iterator[Record]:
        return self._train() if split == "train" else self._val()

    def _wnids_without_devkit(self) -> list[str]:
        found: list[str] = []
        try:
            for member in self._scan(TRAIN):
                found.append(class_tars.wnid_of(member, TRAIN))
        except TruncatedSourceError:
            pass  # records() says so, after the whole ones
        published = orders.ilsvrc2012_wnids()
        return published if set(found) <= set(published) else sorted_wnids(found)

    def _scan(self, name: str) -> Iterator[tar.Member]:
        with contextlib.closing(self._folder.open(name)) as file:
            yield from tar.scan(file, name)

    def _train(self) -> Iterator[Record]:
        with contextlib.closing(self._folder.open(TRAIN)) as file:
            for wnid, member in class_tars.scan(file, TRAIN, set(self.wnids), parallel=self._folder.remote):
                yield Record(key_of(member.name), (wnid,), Locator(TRAIN, *member))

    def _val(self) -> Iterator[Record]:
        truth = self._devkit.val_wnids()
        for member in self._scan(VAL):
            key = key_of(member.name)
            number = re.search(r"(\d+)$", key)
            if number is None or not 1 <= int(number[1]) <= len(truth):
                raise SourceError(f"{VAL}: {member.name} has no line in the devkit's ground truth ({len(truth)} lines)")
            wnid = truth[int(number[1]) - 1]
            yield Record(key, (wnid,), Locator(VAL, member.name, member.offset, member.size))
