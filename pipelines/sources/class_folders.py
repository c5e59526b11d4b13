"""One folder per class: ILSVRC2012 extracted, Kaggle's tree, Imagenette, Imagewoof, or the user's own images."""

from __future__ import annotations

import os
import re
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
from imgtool.pipelines.records import Box, Record, key_of, sorted_wnids
from imgtool.pipelines.storage.folders import open_folder
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

VAL_NAMES = ("val", "valid", "validation", "test")
_TRAIN = re.compile(r"((?:[^/]+/)*?)train/[^/]+/[^/]+$")  # group 1: the folders above train
_TEST = re.compile(r"ILSVRC2012_test_\d+\.\w+$")


class ClassFolders:
    """``train/CLASS/IMAGE`` and ``val/CLASS/IMAGE`` (or valid, validation, test), or just ``CLASS/IMAGE``.

    In a folder, a tar or a zip, perhaps below other folders as in Kaggle's tree (``ILSVRC/Data/CLS-LOC/train``). The
    classes are the folders' names, wnids or not. A validation folder without class folders is labelled by
    LOC_val_solution.csv, the development kit or its ILSVRC2012_validation_ground_truth.txt, whichever is found first.
    ILSVRC2012's test folder, which has no class folders, is the unlabelled split test. Boxes come from Kaggle's tables
    or annotations. Hidden files, and files without an image suffix, are left out.
    """

    layout: ClassVar[str] = "class-folders"

    @classmethod
    def recognise(cls, tree: FileTree) -> bool:
        return any(_TRAIN.match(name) or name.count("/") == 1 for name in tree.images())

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self.root = tree.root
        self.passed_over = tree.passed_over
        self._images = tree.images()
        above = sorted({match[1] for name in self._images if (match := _TRAIN.match(name))})
        if len(above) > 1:
            folders = ", ".join(name or "." for name in above)
            raise SourceError(f"{tree.path}: has several train folders, in {folders}; give one of these folders")
        # Without a folder named train, the top-level folders are the classes.
        self._folder = {"train": f"{above[0]}train/" if above else ""}
        if above and (val := self._find_val_folder(above[0])):
            self._folder["val"] = val
        if above and any(self._is_test(name, f"{above[0]}test/") for name in self._images):
            self._folder["test"] = f"{above[0]}test/"
        self.splits = tuple(self._folder)
        self.notes: list[str] = []
        train = self._folder["train"]
        self.wnids = sorted_wnids(
            c for name in self._images if name.startswith(train) and (c := _class_of(name, train))
        )
        self.ilsvrc2012_ids: dict[str, int] = {}

    def _find_val_folder(self, above: str) -> str | None:
        for name in VAL_NAMES:
            top = f"{above}{name}/"
            found = [image for image in self._images if image.startswith(top)]
            # A test folder without class folders is ILSVRC2012's, whose labels are not public.
            if found and (name != "test" or all(_class_of(image, top) for image in found)):
                return top
        return None

    @staticmethod
    def _is_test(name: str, top: str) -> bool:
        """Whether this is one of ILSVRC2012's test images, which are in no class folder and have no public label."""
        return name.startswith(top) and bool(_TEST.fullmatch(name.removeprefix(top)))

    def records(self, split: str) -> Iterator[Record]:
        top, known = self._folder[split], set(self.wnids)
        boxes = self._boxes(split)
        flat: dict[str, ImageLabel] | None = None
        for name in self._images:
            if not name.startswith(top):
                continue
            key = key_of(name)
            if split == "test":
                yield Record(key, (), self._tree.files[name])
                continue
            label = ImageLabel(_class_of(name, top))
            if not label.wnid:
                flat = self._flat_labels() if flat is None else flat
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
            yield Record(key, (label.wnid,), self._tree.files[name], boxes.get(key, label.boxes))
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


def _class_of(name: str, top: str) -> str:
    """Returns the class folder of an image below ``top``, "" if it is in none. Raises SourceError if it is deeper."""
    folder, slash, file = name.removeprefix(top).partition("/")
    if "/" in file:
        raise SourceError(
            f"{name}: is below a subfolder of a class folder; move it into {top}{folder}/, "
            "or give the folder that holds the class folders"
        )
    return folder if slash else ""
