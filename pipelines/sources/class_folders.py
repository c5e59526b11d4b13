"""Pictures in a folder a class: ILSVRC2012 extracted, Kaggle's tree, Imagenette, Imagewoof, or one's own."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from imgtool.pipelines.codec import PICTURE_SUFFIXES
from imgtool.pipelines.records import Box, Record, key_of, sorted_wnids
from imgtool.pipelines.sources.devkit import GROUND_TRUTH, find_devkit, read_devkit
from imgtool.pipelines.sources.tree import Tree
from imgtool.pipelines.storage import open_folder
from imgtool.wordnet import orders
from imgtool.wordnet.errors import InputError, SourceError, TruncatedSourceError

VAL_NAMES = ("val", "valid", "validation", "test")
SOLUTION = "LOC_val_solution.csv"
_TRAIN = re.compile(r"((?:[^/]+/)*?)train/[^/]+/[^/]+$")  # what is above train, in the path of a training picture


class Label(NamedTuple):
    """What is known of a picture besides where it lies."""

    wnid: str
    boxes: tuple[Box, ...] = ()


class ClassFolders:
    """``train/CLASS/PICTURE`` and ``val/CLASS/PICTURE`` (or valid, validation, test), or just ``CLASS/PICTURE``.

    In a folder or a tar, perhaps some folders down, as Kaggle has it (``ILSVRC/Data/CLS-LOC/train``). Class names are
    the folders', wnids or not. A validation folder without class folders is labelled by what lies beside:
    LOC_val_solution.csv, the development kit, or its ILSVRC2012_validation_ground_truth.txt. Files that are no
    pictures by their ending, and hidden ones, are no records.
    """

    layout: ClassVar[str] = "class-folders"

    @classmethod
    def recognise(cls, tree: Tree) -> bool:
        return any(_TRAIN.match(name) or name.count("/") == 1 for name in tree.files if _is_picture(name))

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.root = tree.root
        self._pictures = [name for name in tree.files if _is_picture(name)]
        above = sorted({match[1] for name in self._pictures if (match := _TRAIN.match(name))})
        if len(above) > 1:
            raise SourceError(f"{tree.path}: has several train folders, in {', '.join(above)}: give one of those")
        # Without a folder called train the top folders are the classes themselves.
        self._folder = {"train": f"{above[0]}train/" if above else ""}
        if above and (val := self._val_folder(above[0])):
            self._folder["val"] = val
        self.splits = tuple(self._folder)
        train = self._folder["train"]
        self.wnids = sorted_wnids(
            c for name in self._pictures if name.startswith(train) and (c := _class_of(name, train))
        )
        self.ilsvrc2012_ids: dict[str, int] = {}

    def _val_folder(self, above: str) -> str | None:
        for name in VAL_NAMES:
            top = f"{above}{name}/"
            found = [picture for picture in self._pictures if picture.startswith(top)]
            # A flat test folder is ILSVRC2012's, whose labels are not public.
            if found and (name != "test" or all(_class_of(picture, top) for picture in found)):
                return top
        return None

    def records(self, split: str) -> Iterator[Record]:
        top, known = self._folder[split], set(self.wnids)
        flat: dict[str, Label] | None = None
        for name in self._pictures:
            if not name.startswith(top):
                continue
            key = key_of(name)
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
            yield Record(key, (label.wnid,), self._tree.files[name], label.boxes)
        if self._tree.truncated:
            raise TruncatedSourceError(self._tree.truncated)

    def _flat_labels(self) -> dict[str, Label]:
        """Label and boxes of each validation picture by its key, from whatever labels lie at the top."""
        files, tree = self._tree.files, self._tree
        solution = next((name for name in files if os.path.basename(name) == SOLUTION), None)
        if solution:
            return dict(_read_solution(tree.read_text(solution), f"{tree.path}: {solution}"))
        folder = open_folder(tree.root)
        devkit = find_devkit(folder)
        listed = next((name for name in files if name.endswith(os.path.basename(GROUND_TRUTH))), None)
        if devkit:
            wnids = read_devkit(folder, devkit).val_wnids()
        elif listed:
            published = orders.ilsvrc2012_wnids()
            try:
                truth = [int(line) for line in tree.read_text(listed).split()]
                wnids = [published[i] for i in orders.convert(truth, "ilsvrc2012_id", "sorted")]
            except (ValueError, InputError) as error:
                raise SourceError(f"{tree.path}: {listed}: {error}") from None
        else:
            return {}
        return {f"ILSVRC2012_val_{n:08d}": Label(wnid) for n, wnid in enumerate(wnids, 1)}


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES) and not os.path.basename(name).startswith(".")


def _class_of(name: str, top: str) -> str:
    """The class folder that a picture below ``top`` is in, "" where it is in none. Raises SourceError if deeper."""
    folder, slash, file = name.removeprefix(top).partition("/")
    if "/" in file:
        raise SourceError(f"{name}: lies deeper than a class folder; this is not a layout known here")
    return folder if slash else ""


def _read_solution(text: str, where: str) -> Iterator[tuple[str, Label]]:
    """Kaggle's table: ImageId, and "wnid xmin ymin xmax ymax" once or more."""
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
        objects = re.findall(r"(\S+) (-?\d+) (-?\d+) (-?\d+) (-?\d+)(?: |$)", row.get("PredictionString") or "")
        if not row.get("ImageId") or not objects:
            raise SourceError(f"{where}, line {number}: expected ImageId,PredictionString with a wnid and a box")
        yield row["ImageId"], Label(objects[0][0], tuple(Box(wnid, *map(int, corners)) for wnid, *corners in objects))
