"""Images in a folder a class: ILSVRC2012 extracted, Kaggle's tree, Imagenette, Imagewoof, or one's own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import ClassVar

from imgtool.pipelines.annotations.devkit import find_devkit, read_devkit
from imgtool.pipelines.annotations.val_labels import (
    GROUND_TRUTH_FILE,
    SOLUTION,
    Label,
    numbered,
    read_ground_truth,
    read_solution,
)
from imgtool.pipelines.annotations.voc import MAX_XML, Annotations
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.archives.tree import Tree
from imgtool.pipelines.records import IMAGE_SUFFIXES, Box, Record, key_of, sorted_wnids
from imgtool.pipelines.storage.folders import open_folder
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

VAL_NAMES = ("val", "valid", "validation", "test")
_TRAIN = re.compile(r"((?:[^/]+/)*?)train/[^/]+/[^/]+$")  # what is above train, in the path of a training image
_TEST = re.compile(r"ILSVRC2012_test_\d+\.\w+$")


class ClassFolders:
    """``train/CLASS/IMAGE`` and ``val/CLASS/IMAGE`` (or valid, validation, test), or just ``CLASS/IMAGE``.

    In a folder or a tar, perhaps some folders down, as Kaggle has it (``ILSVRC/Data/CLS-LOC/train``). Class names are
    the folders', wnids or not. A validation folder without class folders is labelled by what lies beside:
    LOC_val_solution.csv, the development kit, or its ILSVRC2012_validation_ground_truth.txt; ILSVRC2012's flat test
    folder is the unlabelled split test. Boxes come from Kaggle's tables or annotations. Files that are no images by
    their ending, and hidden ones, are no records.
    """

    layout: ClassVar[str] = "class-folders"

    @classmethod
    def recognise(cls, tree: Tree) -> bool:
        return any(_TRAIN.match(name) or name.count("/") == 1 for name in tree.files if _is_image(name))

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.root = tree.root
        self._images = [name for name in tree.files if _is_image(name)]
        above = sorted({match[1] for name in self._images if (match := _TRAIN.match(name))})
        if len(above) > 1:
            raise SourceError(f"{tree.path}: has several train folders, in {', '.join(above)}: give one of those")
        # Without a folder called train the top folders are the classes themselves.
        self._folder = {"train": f"{above[0]}train/" if above else ""}
        if above and (val := self._val_folder(above[0])):
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

    def _val_folder(self, above: str) -> str | None:
        for name in VAL_NAMES:
            top = f"{above}{name}/"
            found = [image for image in self._images if image.startswith(top)]
            # A flat test folder is ILSVRC2012's, whose labels are not public.
            if found and (name != "test" or all(_class_of(image, top) for image in found)):
                return top
        return None

    @staticmethod
    def _is_test(name: str, top: str) -> bool:
        """Whether it is one of ILSVRC2012's test images, which lie flat and have no public label."""
        return name.startswith(top) and bool(_TEST.fullmatch(name.removeprefix(top)))

    def records(self, split: str) -> Iterator[Record]:
        top, known = self._folder[split], set(self.wnids)
        boxes = self._boxes(split)
        flat: dict[str, Label] | None = None
        for name in self._images:
            if not name.startswith(top):
                continue
            key = key_of(name)
            if split == "test":
                yield Record(key, (), self._tree.files[name])
                continue
            label = Label(_class_of(name, top))
            if not label.wnid:
                flat = self._flat_labels() if flat is None else flat
                if key not in flat:
                    raise SourceError(f"{self._tree.path}: {name} is in no class folder, and nothing states its class")
                label = flat[key]
            if label.wnid not in known:
                raise SourceError(
                    f"{self._tree.path}: {name}: {label.wnid} is not among the {len(known)} train folders"
                )
            yield Record(key, (label.wnid,), self._tree.files[name], boxes.get(key, label.boxes))
        if self._tree.truncated:
            raise TruncatedSourceError(self._tree.truncated)

    def _flat_labels(self) -> dict[str, Label]:
        """Label and boxes of each validation image by its key, from whatever labels lie at the top."""
        if solution := self._named(SOLUTION["val"]):
            return self._solution(solution)
        folder = open_folder(self._tree.root)
        if devkit := find_devkit(folder):
            return numbered(read_devkit(folder, devkit).val_wnids())
        if listed := self._named(GROUND_TRUTH_FILE):
            return read_ground_truth(self._tree.read_text(listed), f"{self._tree.path}: {listed}")
        return {}

    def _named(self, name: str) -> str | None:
        return next((found for found in self._tree.files if os.path.basename(found) == name), None)

    def _solution(self, name: str) -> dict[str, Label]:
        return read_solution(self._tree.read_text(name), f"{self._tree.path}: {name}")

    def _boxes(self, split: str) -> dict[str, tuple[Box, ...]]:
        """Boxes by key: of Kaggle's table if it is there, else of the annotations beside the images."""
        if split in SOLUTION and (solution := self._named(SOLUTION[split])):
            return {key: label.boxes for key, label in self._solution(solution).items()}
        annotations = Annotations()
        with LocatorReader(self._tree.root) as reader:
            for name, locator in self._tree.files.items():
                if f"Annotations/CLS-LOC/{split}/" in name and name.endswith(".xml") and locator.size <= MAX_XML:
                    annotations.add(name, reader.read(locator))
        self.notes += annotations.notes()
        return annotations.boxes


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not os.path.basename(name).startswith(".")


def _class_of(name: str, top: str) -> str:
    """The class folder that an image below ``top`` is in, "" where it is in none. Raises SourceError if deeper."""
    folder, slash, file = name.removeprefix(top).partition("/")
    if "/" in file:
        raise SourceError(f"{name}: lies deeper than a class folder; this is not a layout known here")
    return folder if slash else ""
