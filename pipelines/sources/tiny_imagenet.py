"""Tiny-ImageNet as a folder, tar or zip: train/WNID/images, val/images with val_annotations.txt, wnids.txt."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import ClassVar

from imgtool.pipelines.archives.file_tree import FileTree
from imgtool.pipelines.records import Box, Record, key_of, pixel, sorted_wnids
from imgtool.pipelines.sources.layout import SPLITS, counted
from imgtool.pipelines.storage.passed_over import OUTSIDE_SPLITS
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

WNIDS = "wnids.txt"
VAL_ANNOTATIONS = "val/val_annotations.txt"


class TinyImageNet:
    """The layout of tiny-imagenet-200, with any number of classes.

    The classes are those in wnids.txt, which is not sorted. In any split, images may also be sorted into class folders,
    with or without a folder images below: these are of the class of their folder. Unlabelled test images are left out.
    """

    layout: ClassVar[str] = "tiny-imagenet"

    @classmethod
    def recognise(cls, tree: FileTree) -> bool:
        return WNIDS in tree.files and any(name.startswith("train/") for name in tree.files)

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self.root = tree.root
        self.wnids = sorted_wnids(tree.read_text(WNIDS).split())
        self.ilsvrc2012_ids: dict[str, int] = {}
        self.notes: list[str] = []
        self.passed_over = tree.passed_over
        known = set(self.wnids)
        self._images: dict[str, list[str]] = {split: [] for split in SPLITS}
        outside: list[str] = []
        unlabelled: list[str] = []
        for name in tree.images():
            split, *folders = name.split("/")[:-1] or [""]
            if split == "test" and not known.intersection(folders):
                unlabelled.append(name)
            else:
                self._images.get(split, outside).append(name)
        self.splits = tuple(split for split, names in self._images.items() if names)
        trained = {name.split("/")[1] for name in self._images["train"]}
        for name in unlabelled:
            self.passed_over.add("test image without a label", name)
        for name in outside:
            self.passed_over.add(OUTSIDE_SPLITS, name)
        if "train" in self.splits:
            empty = [wnid for wnid in self.wnids if wnid not in trained]
            self.notes += counted(empty, f"classes of {WNIDS} without training images")

    def records(self, split: str) -> Iterator[Record]:
        boxes = {"train": self._train_boxes, "val": self._val_annotations}
        yield from self._labelled(split, boxes[split]() if split in boxes else {})
        if self._tree.truncated:
            raise TruncatedSourceError(self._tree.truncated)

    def _labelled(self, split: str, boxes: Mapping[str, Box]) -> Iterator[Record]:
        """Yields the images of a split. Their class is that of their folder, else that of their annotation."""
        known = set(self.wnids)
        if split == "val" and VAL_ANNOTATIONS not in self._tree.files and self._tree.truncated:
            return  # the labels are missing because the tar is truncated: no validation record is complete
        for name in self._images[split]:
            file = os.path.basename(name)
            folder, box = name.split("/")[1], boxes.get(file)
            in_class_folder = folder not in ("images", file)
            wnid = folder if in_class_folder else box.wnid if box else ""
            if in_class_folder and box and box.wnid != folder:
                raise SourceError(f"{self._tree.path}: {name}: its annotation says {box.wnid}; correct either")
            if in_class_folder and folder not in known:
                raise SourceError(
                    f"{self._tree.path}: {name}: {folder} is not in {WNIDS}; add it there, or remove the folder"
                )
            if not wnid:
                lacks = f"has no line in {VAL_ANNOTATIONS}" if split == "val" else "is in no class folder"
                raise SourceError(f"{self._tree.path}: {name} {lacks}; add its label there, or remove the image")
            yield Record(key_of(file), (wnid,), self._tree.files[name], (box,) if box else ())

    def _train_boxes(self) -> dict[str, Box]:
        boxes: dict[str, Box] = {}
        for name in self._tree.files:
            if name.startswith("train/") and name.endswith("_boxes.txt"):
                wnid = os.path.basename(name).removesuffix("_boxes.txt")
                boxes |= {file: box._replace(wnid=wnid) for (file,), box in self._lines(name, 5)}
        return boxes

    def _val_annotations(self) -> dict[str, Box]:
        if VAL_ANNOTATIONS not in self._tree.files:
            return {}
        return {file: box for (file, _), box in self._lines(VAL_ANNOTATIONS, 6)}

    def _lines(self, name: str, fields: int) -> Iterator[tuple[list[str], Box]]:
        """Yields the fields of each line before the box, and the box, whose class is the last of these fields."""
        for number, line in enumerate(self._tree.read_text(name).splitlines(), 1):
            parts = line.split()
            if not parts:
                continue
            try:
                if len(parts) != fields:
                    raise ValueError
                yield parts[:-4], Box(parts[-5], *map(pixel, parts[-4:]))
            except ValueError:
                raise SourceError(
                    f"{self._tree.path}: {name}, line {number}: expected {fields} fields, "
                    "the last four of which are the corners of a box"
                ) from None
