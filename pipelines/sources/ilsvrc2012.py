"""ILSVRC2012 as downloaded, read in place: a tar of class tars, a tar of validation images, the development kit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar

from imgtool.pipelines.annotations.devkit import DEVKITS, Devkit, find_devkit, read_devkit
from imgtool.pipelines.annotations.val_labels import (
    GROUND_TRUTH_FILE,
    SOLUTION_FILES,
    ImageLabel,
    labels_in_order,
    read_ground_truth,
    read_solution,
)
from imgtool.pipelines.annotations.voc import BoxAnnotations
from imgtool.pipelines.archives import class_tars, tar
from imgtool.pipelines.archives.file_tree import FileTree
from imgtool.pipelines.records import Locator, Record, key_of, sorted_wnids
from imgtool.pipelines.storage.folders import join, open_folder
from imgtool.pipelines.storage.passed_over import PassedOver
from imgtool.pipelines.storage.text import decode_text
from imgtool.wordnet import orders
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

TRAIN_ARCHIVE = "ILSVRC2012_img_train.tar"
VAL_ARCHIVE = "ILSVRC2012_img_val.tar"
TEST_ARCHIVES = ("ILSVRC2012_img_test_v10102019.tar", "ILSVRC2012_img_test.tar")
BOX_ARCHIVES = {
    "train": ("ILSVRC2012_bbox_train_v2.tar.gz",),
    "val": ("ILSVRC2012_bbox_val_v3.tgz", "ILSVRC2012_bbox_val_v3.tar.gz"),
}


class ILSVRC2012:
    """A folder with the ILSVRC2012 archives. Any of train, val and test may be absent; test images have no labels.

    The classes are the leaves in the development kit. Without it they are the 1000 published classes if these include
    every class tar, else the class tars' names. Validation images are labelled by the development kit, or by
    LOC_val_solution.csv or the kit's ground-truth file next to the archive. Boxes come from the bounding-box archives,
    where present.
    """

    layout: ClassVar[str] = "ilsvrc2012"

    @classmethod
    def recognise(cls, root: str) -> bool:
        folder = open_folder(root)
        return any(folder.size(name) is not None for name in (TRAIN_ARCHIVE, VAL_ARCHIVE, *TEST_ARCHIVES))

    def __init__(self, root: str) -> None:
        self.root = root
        self._folder = folder = open_folder(root)
        self._test = next((name for name in TEST_ARCHIVES if folder.size(name) is not None), "")
        archives = {"train": TRAIN_ARCHIVE, "val": VAL_ARCHIVE, "test": self._test}
        self.splits = tuple(split for split, name in archives.items() if name and folder.size(name) is not None)
        devkit = find_devkit(folder)
        self._devkit = read_devkit(folder, devkit) if devkit else Devkit({}, [])
        self.ilsvrc2012_ids = self._devkit.ids
        self.notes: list[str] = []
        self.passed_over = self._beside(devkit)
        self._val_label_of = self._val_labels() if "val" in self.splits else {}
        self.wnids = sorted_wnids(self._devkit.ids) or self._wnids_without_devkit()

    def _beside(self, devkit: str | None) -> PassedOver:
        """Counts the files of the folder that are not ILSVRC2012's."""
        tree = FileTree(self.root)
        known = {TRAIN_ARCHIVE, VAL_ARCHIVE, self._test, devkit, *SOLUTION_FILES.values(), GROUND_TRUTH_FILE}
        known.update(*BOX_ARCHIVES.values())
        passed_over = tree.passed_over.without()
        for locator in tree.files.values():
            if locator.file not in known:
                passed_over.add("not a file of ILSVRC2012", locator.file)
        return passed_over

    def _val_labels(self) -> dict[str, ImageLabel]:
        folder, solution = self._folder, SOLUTION_FILES["val"]
        if self._devkit.ids:
            return labels_in_order(self._devkit.val_wnids())
        if folder.size(solution) is not None:
            return read_solution(decode_text(folder.read(solution)), join(self.root, solution))
        if folder.size(GROUND_TRUTH_FILE) is not None:
            text = decode_text(folder.read(GROUND_TRUTH_FILE))
            return read_ground_truth(text, join(self.root, GROUND_TRUTH_FILE))
        raise SourceError(
            f"{join(self.root, VAL_ARCHIVE)}: the labels are missing; put {DEVKITS[0]} into the same folder"
        )

    def records(self, split: str) -> Iterator[Record]:
        annotations = BoxAnnotations()
        for name in BOX_ARCHIVES.get(split, ()):
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
            for member in self._scan(TRAIN_ARCHIVE) if "train" in self.splits else ():
                found.append(class_tars.wnid_of(member, TRAIN_ARCHIVE))
        except TruncatedSourceError:
            pass  # records() reports it, after the complete records
        published = orders.ilsvrc2012_wnids()
        known = {*found, *(label.wnid for label in self._val_label_of.values())}
        return published if known <= set(published) else sorted_wnids(known)

    def _scan(self, name: str, passed_over: PassedOver | None = None) -> Iterator[tar.Member]:
        with contextlib.closing(self._folder.open(name)) as file:
            yield from tar.scan(file, name, passed_over=passed_over)

    def _train(self) -> Iterator[Record]:
        with contextlib.closing(self._folder.open(TRAIN_ARCHIVE)) as file:
            known, parallel = set(self.wnids), self._folder.remote
            for wnid, member in class_tars.scan(
                file, TRAIN_ARCHIVE, known, parallel=parallel, passed_over=self.passed_over
            ):
                yield Record(key_of(member.name), (wnid,), Locator(TRAIN_ARCHIVE, *member))

    def _val(self) -> Iterator[Record]:
        for member in self._scan(VAL_ARCHIVE, self.passed_over):
            key = key_of(member.name)
            if key not in self._val_label_of:
                raise SourceError(
                    f"{join(self.root, VAL_ARCHIVE)}: {member.name} has no label among the {len(self._val_label_of)} "
                    "in the ground truth; check that both are from the same data set"
                )
            label = self._val_label_of[key]
            yield Record(key, (label.wnid,), Locator(VAL_ARCHIVE, *member), label.boxes)

    def _unlabelled(self) -> Iterator[Record]:
        for member in self._scan(self._test, self.passed_over):
            yield Record(key_of(member.name), (), Locator(self._test, *member))
