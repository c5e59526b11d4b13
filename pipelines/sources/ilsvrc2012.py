"""ILSVRC2012 as downloaded: a tar of class tars, a flat validation tar, the development kit. Read in place."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from imgtool.pipelines.records import Locator, Record, key_of, sorted_wnids
from imgtool.pipelines.sources import tar
from imgtool.pipelines.sources.devkit import DEVKITS, Devkit, find_devkit, read_devkit
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
    def recognise(cls, path: Path) -> bool:
        return path.is_dir() and any((path / name).is_file() for name in (TRAIN, VAL))

    def __init__(self, path: Path) -> None:
        self.root = str(path)
        devkit = find_devkit(path)
        if devkit is None and (path / VAL).is_file():
            raise SourceError(f"{path / VAL} has no labels of its own: put {DEVKITS[0]} beside it")
        self._devkit = read_devkit(devkit) if devkit else Devkit({}, [])
        self.ilsvrc2012_ids = self._devkit.ids
        self.splits = tuple(s for s, name in (("train", TRAIN), ("val", VAL)) if (path / name).is_file())
        self.wnids = sorted_wnids(self._devkit.ids) or self._wnids_without_devkit()

    def records(self, split: str) -> Iterator[Record]:
        return self._train() if split == "train" else self._val()

    def _wnids_without_devkit(self) -> list[str]:
        found: list[str] = []
        try:
            for member in self._scan(TRAIN):
                found.append(_wnid(member))
        except TruncatedSourceError:
            pass  # records() says so, after the whole ones
        published = orders.ilsvrc2012_wnids()
        return published if set(found) <= set(published) else sorted_wnids(found)

    def _scan(self, name: str) -> Iterator[tar.Member]:
        descriptor = os.open(os.path.join(self.root, name), os.O_RDONLY)
        try:
            yield from tar.scan(descriptor, name)
        finally:
            os.close(descriptor)

    def _train(self) -> Iterator[Record]:
        known = set(self.wnids)
        descriptor = os.open(os.path.join(self.root, TRAIN), os.O_RDONLY)
        length = os.fstat(descriptor).st_size
        truncated: list[str] = []
        try:
            for outer in tar.scan(descriptor, TRAIN, cut_off=True):
                wnid = _wnid(outer)
                if wnid not in known:
                    raise SourceError(f"{TRAIN}: {outer.name} is not one of the devkit's {len(known)} classes")
                end = min(outer.offset + outer.size, length)
                try:
                    for inner in tar.scan(descriptor, f"{TRAIN}!{outer.name}", outer.offset, end):
                        member = f"{outer.name}/{inner.name}"
                        yield Record(key_of(inner.name), (wnid,), Locator(TRAIN, member, inner.offset, inner.size))
                except TruncatedSourceError as error:
                    truncated.append(str(error))
        except TruncatedSourceError as error:
            truncated.append(str(error))
        finally:
            os.close(descriptor)
        if truncated:
            raise TruncatedSourceError("; ".join(truncated))

    def _val(self) -> Iterator[Record]:
        truth = self._devkit.val_wnids()
        for member in self._scan(VAL):
            key = key_of(member.name)
            number = re.search(r"(\d+)$", key)
            if number is None or not 1 <= int(number[1]) <= len(truth):
                raise SourceError(f"{VAL}: {member.name} has no line in the devkit's ground truth ({len(truth)} lines)")
            wnid = truth[int(number[1]) - 1]
            yield Record(key, (wnid,), Locator(VAL, member.name, member.offset, member.size))


def _wnid(member: tar.Member) -> str:
    stem, ending = os.path.splitext(os.path.basename(member.name))
    if ending != ".tar":
        raise SourceError(f"{TRAIN}: {member.name} is not a class tar (nXXXXXXXX.tar)")
    return stem
