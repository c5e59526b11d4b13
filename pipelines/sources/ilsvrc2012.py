"""ILSVRC2012 as downloaded: a tar of class tars, a flat validation tar, the development kit. Read in place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar

from imgtool.pipelines.annotations.devkit import DEVKITS, Devkit, find_devkit, read_devkit
from imgtool.pipelines.annotations.val_labels import (
    GROUND_TRUTH_FILE,
    SOLUTION,
    Label,
    numbered,
    read_ground_truth,
    read_solution,
)
from imgtool.pipelines.annotations.voc import Annotations
from imgtool.pipelines.archives import class_tars, tar
from imgtool.pipelines.records import Locator, Record, key_of, sorted_wnids
from imgtool.pipelines.storage.folders import join, open_folder
from imgtool.wordnet import orders
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
TESTS = ("ILSVRC2012_img_test_v10102019.tar", "ILSVRC2012_img_test.tar")
BOXES = {
    "train": ("ILSVRC2012_bbox_train_v2.tar.gz",),
    "val": ("ILSVRC2012_bbox_val_v3.tgz", "ILSVRC2012_bbox_val_v3.tar.gz"),
}


class ILSVRC2012:
    """A folder that holds the ILSVRC2012 archives; any of train, val and test may be absent. Test has no labels.

    The classes are the devkit's leaves. Without a devkit they are the 1000 published ones if every class tar is among
    those, else the class tars' own names. Validation images are labelled by the devkit, or by its ground-truth file
    or LOC_val_solution.csv beside the archive. Boxes come from the bounding-box archives, where they are there.
    """

    layout: ClassVar[str] = "ilsvrc2012"

    @classmethod
    def recognise(cls, root: str) -> bool:
        folder = open_folder(root)
        return any(folder.size(name) is not None for name in (TRAIN, VAL, *TESTS))

    def __init__(self, root: str) -> None:
        self.root = root
        self._folder = folder = open_folder(root)
        self._test = next((name for name in TESTS if folder.size(name) is not None), "")
        archives = {"train": TRAIN, "val": VAL, "test": self._test}
        self.splits = tuple(split for split, name in archives.items() if name and folder.size(name) is not None)
        devkit = find_devkit(folder)
        self._devkit = read_devkit(folder, devkit) if devkit else Devkit({}, [])
        self.ilsvrc2012_ids = self._devkit.ids
        self.notes: list[str] = []
        self._truth = self._val_labels() if "val" in self.splits else {}
        self.wnids = sorted_wnids(self._devkit.ids) or self._wnids_without_devkit()

    def _val_labels(self) -> dict[str, Label]:
        folder, solution = self._folder, SOLUTION["val"]
        if self._devkit.ids:
            return numbered(self._devkit.val_wnids())
        if folder.size(solution) is not None:
            return read_solution(folder.read(solution).decode("utf-8", "replace"), join(self.root, solution))
        if folder.size(GROUND_TRUTH_FILE) is not None:
            text = folder.read(GROUND_TRUTH_FILE).decode("utf-8", "replace")
            return read_ground_truth(text, join(self.root, GROUND_TRUTH_FILE))
        raise SourceError(f"{join(self.root, VAL)} has no labels of its own: put {DEVKITS[0]} beside it")

    def records(self, split: str) -> Iterator[Record]:
        annotations = Annotations()
        for name in BOXES.get(split, ()):
            if self._folder.size(name) is not None:
                annotations.add_tar(self._folder.read(name), name)
        self.notes += annotations.notes()
        records = {"train": self._train, "val": self._val, "test": self._unlabelled}[split]()
        if not annotations.boxes:
            yield from records
            return
        for record in records:
            yield record._replace(boxes=annotations.boxes.get(record.key, record.boxes))

    def _wnids_without_devkit(self) -> list[str]:
        found: list[str] = []
        try:
            for member in self._scan(TRAIN) if "train" in self.splits else ():
                found.append(class_tars.wnid_of(member, TRAIN))
        except TruncatedSourceError:
            pass  # records() says so, after the whole ones
        published = orders.ilsvrc2012_wnids()
        known = {*found, *(label.wnid for label in self._truth.values())}
        return published if known <= set(published) else sorted_wnids(known)

    def _scan(self, name: str) -> Iterator[tar.Member]:
        with contextlib.closing(self._folder.open(name)) as file:
            yield from tar.scan(file, name)

    def _train(self) -> Iterator[Record]:
        with contextlib.closing(self._folder.open(TRAIN)) as file:
            for wnid, member in class_tars.scan(file, TRAIN, set(self.wnids), parallel=self._folder.remote):
                yield Record(key_of(member.name), (wnid,), Locator(TRAIN, *member))

    def _val(self) -> Iterator[Record]:
        for member in self._scan(VAL):
            key = key_of(member.name)
            if key not in self._truth:
                raise SourceError(f"{VAL}: {member.name} has no line in the ground truth ({len(self._truth)} lines)")
            label = self._truth[key]
            yield Record(key, (label.wnid,), Locator(VAL, *member), label.boxes)

    def _unlabelled(self) -> Iterator[Record]:
        for member in self._scan(self._test):
            yield Record(key_of(member.name), (), Locator(self._test, *member))
