"""One folder per class: ILSVRC2012 extracted, Kaggle's tree, Imagenette, Imagewoof, or the user's own images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

from imgtool.pipelines.annotations.devkit import DEVKITS, find_devkit, read_devkit
from imgtool.pipelines.annotations.val_labels import (
    GROUND_TRUTH_FILE,
    SOLUTION_FILES,
    ImageLabel,
    labels_in_order,
    read_ground_truth,
    read_solution,
)
from imgtool.pipelines.annotations.voc import MAX_XML, BoxAnnotations
from imgtool.pipelines.archives.file_tree import FileTree
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.records import SPLIT_NAMES, Box, Record, key_of, sorted_wnids
from imgtool.pipelines.sources import class_paths
from imgtool.pipelines.sources.layout import common_folder, counted
from imgtool.pipelines.storage.folders import open_folder
from imgtool.pipelines.storage.passed_over import OUTSIDE_SPLITS
from imgtool.wordnet.errors import SourceError, TruncatedSourceError


class ClassFolders:
    """``train/CLASS/IMAGE``, ``val/CLASS/IMAGE`` and ``test/CLASS/IMAGE``, or just ``CLASS/IMAGE``.

    In a folder, a tar or a zip, perhaps below other folders as in Kaggle's tree (``ILSVRC/Data/CLS-LOC/train``). The
    splits' folders may have other usual names (``SPLIT_NAMES`` in records.py). The classes are the folders' names,
    wnids or not; `class_paths` says which name counts where folders are nested. A folder of train without images is a
    class without samples.

    A validation folder without class folders is labelled by LOC_val_solution.csv, the development kit or its
    ILSVRC2012_validation_ground_truth.txt, whichever is found first; a test folder without class folders has no labels.
    Boxes come from Kaggle's tables or annotations. Images beside class folders cannot be stored.
    """

    layout: ClassVar[str] = "class-folders"

    @classmethod
    def recognise(cls, tree: FileTree) -> bool:
        """Whether there are class folders. Raises SourceError if several folders could be one split."""
        folders = class_paths.folders_of(tree.images())
        return class_paths.find_splits(folders, tree.path) is not None

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self.root = tree.root
        self.ilsvrc2012_ids: dict[str, int] = {}
        self.notes: list[str] = []
        self.passed_over = tree.passed_over
        self._images = tree.images()
        folders = class_paths.folders_of(self._images)
        self._top = class_paths.find_splits(folders, tree.path) or {"train": ""}
        if list(self._top.values()) == [""] and (only := _split_of_all(tree)):
            self._top = {only: ""}
        self.splits = tuple(self._top)
        paths = class_paths.ClassPaths(tree, folders, self._top)
        self._classes = paths.of_folder
        of_train = self._classes.get("train")
        if of_train == {}:
            raise SourceError(
                f"{tree.path}: the images in {self._top['train']} are in no class folder; sort them into class folders"
            )
        known = of_train if of_train is not None else {k: c for of in self._classes.values() for k, c in of.items()}
        in_split = bool(self._top.get("train") or _split_of_all(tree))
        self.wnids = sorted_wnids([*known.values(), *(paths.empty if in_split else ())])
        for name in self._images:
            if not name.startswith(tuple(self._top.values())):
                self.passed_over.add(OUTSIDE_SPLITS, name)
        if paths.nested:
            self.notes.append(
                f"class folders are nested: the images in {paths.nested} are of the class {paths.nested_class}"
            )
        if in_split:
            self.notes += counted(paths.empty, "class folders of train without images, each a class of 0 samples")
        else:
            self.notes += counted(paths.empty, "folders without images, which are not classes")

    def records(self, split: str) -> Iterator[Record]:
        top, known = self._top[split], set(self.wnids)
        of_folder = {top + path: wnid for path, wnid in self._classes[split].items()}
        boxes = self._boxes(split)
        flat = {} if of_folder or split == "test" else self._flat_labels()
        stray = []
        for name in self._images:
            if not name.startswith(top):
                continue
            key, locator = key_of(name), self._tree.files[name]
            label = ImageLabel(of_folder.get(name.rpartition("/")[0], ""))
            if not label.wnid:
                if of_folder:
                    stray.append(name)
                    yield Record(key, (), locator.unreadable("the image is in no class folder"))
                    continue
                if split == "test":
                    yield Record(key, (), locator)
                    continue
                if key not in flat:
                    raise SourceError(
                        f"{self._tree.path}: {name} is in no class folder, and no label file states its class; "
                        f"add {SOLUTION_FILES['val']} or {DEVKITS[0]}, or sort the images into class folders"
                    )
                label = flat[key]
            if label.wnid not in known:
                raise SourceError(
                    f"{self._tree.path}: {name}: its class {label.wnid} is not among the {len(known)} folders of the "
                    "split train; add the class there, or remove the image"
                )
            yield Record(key, (label.wnid,), locator, boxes.get(key, label.boxes))
        self.notes += counted(stray, f"images of {split} in no class folder, not stored")
        if self._tree.truncated:
            raise TruncatedSourceError(self._tree.truncated)

    def _flat_labels(self) -> dict[str, ImageLabel]:
        """Returns class and boxes by image key, from the first label file that is found; empty if there is none."""
        if solution := self._find_file(SOLUTION_FILES["val"]):
            return self._solution(solution)
        folder = open_folder(self._tree.root)
        if devkit := find_devkit(folder):
            return labels_in_order(read_devkit(folder, devkit).val_wnids())
        if listed := self._find_file(GROUND_TRUTH_FILE):
            return read_ground_truth(self._tree.read_text(listed), f"{self._tree.path}: {listed}")
        return {}

    def _find_file(self, name: str) -> str | None:
        return next((found for found in self._tree.files if os.path.basename(found) == name), None)

    def _solution(self, name: str) -> dict[str, ImageLabel]:
        return read_solution(self._tree.read_text(name), f"{self._tree.path}: {name}")

    def _boxes(self, split: str) -> dict[str, tuple[Box, ...]]:
        """Returns boxes by image key, from Kaggle's table if there is one, else from the annotation files."""
        if split in SOLUTION_FILES and (solution := self._find_file(SOLUTION_FILES[split])):
            return {key: label.boxes for key, label in self._solution(solution).items()}
        annotations = BoxAnnotations()
        with LocatorReader(self._tree.root) as reader:
            for name, locator in self._tree.files.items():
                if f"Annotations/CLS-LOC/{split}/" in name and name.endswith(".xml") and locator.size <= MAX_XML:
                    annotations.add(name, reader.read(locator))
        self.notes += annotations.notes()
        return annotations.boxes


def _split_of_all(tree: FileTree) -> str | None:
    """Returns the split whose folder holds everything, if there is one."""
    return SPLIT_NAMES.get(common_folder(tree).rstrip("/").rpartition("/")[2].lower())
