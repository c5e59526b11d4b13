"""Tiny-ImageNet as a folder, tar or zip: train/WNID/images, val/images with val_annotations.txt, wnids.txt."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

from imgtool.pipelines.archives.file_tree import FileTree
from imgtool.pipelines.records import Box, Record, key_of, sorted_wnids
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

WNIDS = "wnids.txt"
VAL_ANNOTATIONS = "val/val_annotations.txt"


class TinyImageNet:
    """The layout of tiny-imagenet-200, with any number of classes.

    The classes are those in wnids.txt, which is not sorted. The unlabelled test images are left out.
    """

    layout: ClassVar[str] = "tiny-imagenet"

    @classmethod
    def recognise(cls, tree: FileTree) -> bool:
        return WNIDS in tree.files and any(name.startswith("train/") for name in tree.files)

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self.root = tree.root
        self.passed_over = tree.passed_over
        files = tree.files
        self.wnids = sorted_wnids(self._tree.read_text(WNIDS).split())
        self.ilsvrc2012_ids: dict[str, int] = {}
        self.splits = tuple(s for s in ("train", "val") if any(name.startswith(f"{s}/") for name in files))

    def records(self, split: str) -> Iterator[Record]:
        yield from self._train() if split == "train" else self._val()
        if self._tree.truncated:
            raise TruncatedSourceError(self._tree.truncated)

    def _train(self) -> Iterator[Record]:
        known = set(self.wnids)
        boxes: dict[str, tuple[Box, ...]] = {}
        for name in self._tree.files:
            if name.startswith("train/") and name.endswith("_boxes.txt"):
                wnid = name.split("/")[1]
                for file, *corners in self._lines(name, 5):
                    boxes[file] = (_box(wnid, corners),)
        for name, locator in self._tree.files.items():
            folder, _, file = name.rpartition("/")
            if not (folder.startswith("train/") and folder.endswith("/images")):
                continue
            wnid = folder.split("/")[1]
            if wnid not in known:
                raise SourceError(
                    f"{self._tree.path}: {name}: {wnid} is not in {WNIDS}; add it there, or remove the folder"
                )
            yield Record(key_of(file), (wnid,), locator, boxes.get(file, ()))

    def _val(self) -> Iterator[Record]:
        labels = {}
        if VAL_ANNOTATIONS not in self._tree.files and self._tree.truncated:
            return  # the labels are missing because the tar is truncated: no validation record is complete
        if VAL_ANNOTATIONS in self._tree.files:
            for file, wnid, *corners in self._lines(VAL_ANNOTATIONS, 6):
                labels[file] = (wnid, _box(wnid, corners))
        for name, locator in self._tree.files.items():
            if not name.startswith("val/images/"):
                continue
            file = os.path.basename(name)
            if file not in labels:
                raise SourceError(
                    f"{self._tree.path}: {name} has no line in {VAL_ANNOTATIONS}; "
                    "add its label there, or remove the image"
                )
            wnid, box = labels[file]
            yield Record(key_of(file), (wnid,), locator, (box,))

    def _lines(self, name: str, fields: int) -> Iterator[list[str]]:
        for number, line in enumerate(self._tree.read_text(name).splitlines(), 1):
            parts = line.split()
            if not parts:
                continue
            if len(parts) != fields or not all(p.lstrip("-").isdigit() for p in parts[-4:]):
                raise SourceError(
                    f"{self._tree.path}: {name}, line {number}: expected {fields} fields, "
                    "the last four of which are the corners of a box"
                )
            yield parts


def _box(wnid: str, corners: list[str]) -> Box:
    xmin, ymin, xmax, ymax = map(int, corners)
    return Box(wnid, xmin, ymin, xmax, ymax)
