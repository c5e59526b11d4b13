"""WebDataset: tars in which the files of a sample differ in their endings, as imgtool and img2dataset write them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from imgtool.pipelines.archives.file_tree import FileTree
from imgtool.pipelines.archives.parquet import Damaged
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.records import IMAGE_SUFFIXES, Locator, Record
from imgtool.pipelines.sources.layout import (
    classes_of,
    counted,
    first,
    label_text,
    split_in_name,
)
from imgtool.pipelines.sources.parquet_columns import read_texts
from imgtool.pipelines.storage.folders import BytesFile, is_url
from imgtool.pipelines.storage.isolated import ChildDied, Isolated
from imgtool.pipelines.storage.passed_over import NOT_AN_IMAGE
from imgtool.wordnet.errors import ImageError, SourceError, TruncatedSourceError

CLASS_ENDINGS = ("cls", "label", "class")
FIELDS = ("label", "cls", "class", "wnid", "synset", "class_name", "label_name", "category", "target", "class_id")
"""The fields of a sample's JSON that state its class, the first that is present."""
MAX_LABEL = 1 << 22
"""Bytes of the largest label file that is read."""
SPLITS = ("train", "val", "minival", "test")
_OURS = ("dataset.json", "labels.parquet")
_ENDINGS = tuple(f".{ending}" for ending in (*CLASS_ENDINGS, "json", "txt"))
_HOLDOUT = re.compile(r"(?:^|/)minival/")


class Sample(NamedTuple):
    """A sample's files by ending (``jpg``, ``cls``, ``seg.png``); ``key`` is their common name with its folders."""

    key: str
    files: dict[str, Locator]

    @property
    def image(self) -> Locator | None:
        return next((at for ending, at in self.files.items() if f".{ending}" in IMAGE_SUFFIXES), None)


class WebDataset:
    """``0001.jpg`` with ``0001.cls``, ``0001.json`` or ``0001.txt``, … in one tar, or in several in a folder.

    A tar belongs to the split that its name or folder names (``train-0000.tar``), else to train. The label is the
    content of .cls, else a field of the JSON (``FIELDS``), else the text if at most every second text differs: captions
    are no classes. Whole numbers are class indices: among the class table of a data set that imgtool prepared, else
    those of the 1000 wnids, or the numbers are the classes' names. Samples without a label, or without an image as
    img2dataset leaves them for dead links, are not stored.
    """

    layout: ClassVar[str] = "webdataset"

    @classmethod
    def recognise(cls, tree: FileTree) -> bool:
        return any(_has_samples(FileTree(tree.root, shard)) for shard in _shards(tree)[:1]) or _has_samples(tree)

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self.root = tree.root
        self.ilsvrc2012_ids: dict[str, int] = {}
        self.notes: list[str] = []
        self.passed_over = tree.passed_over.without(NOT_AN_IMAGE)  # its tars and label files
        self._shards = _shards(tree) or [""]
        self._kind = self._label_kind()
        numbers: dict[str, int] = {}
        # of each shard, the split and label of each sample with an image: positions in SPLITS and among all texts
        self._splits: dict[str, list[int]] = {}
        self._labels: dict[str, npt.NDArray[np.int64]] = {}
        for shard in self._shards:
            samples = [sample for sample in _samples(self._open(shard)) if sample.image]
            self._splits[shard] = [SPLITS.index(self._split(shard, sample)) for sample in samples]
            labels = [numbers.setdefault(text, len(numbers)) for text in self._read_labels(samples)]
            self._labels[shard] = np.array(labels, np.int64)
        present = {split for splits in self._splits.values() for split in splits}
        self.splits = tuple(split for number, split in enumerate(SPLITS) if number in present)
        self._texts = list(numbers)
        self._check_texts(sum(map(len, self._labels.values())))
        self._class_of, self.wnids = self._classes()

    def _split(self, shard: str, sample: Sample) -> str:
        """Returns the split that the shard's name or folder names, or in a single archive the sample's folder."""
        name = shard or f"{self._tree.path.rpartition('/')[2]}/{sample.key.rpartition('/')[0]}"
        return "minival" if _HOLDOUT.search(name) else split_in_name(name) or "train"

    def _check_texts(self, count: int) -> None:
        """Raises SourceError if the texts are captions; notes where the labels come from if this is not .cls."""
        if self._kind == "cls":
            return
        source = "their .txt files" if self._kind == "txt" else f"the field {self._kind[5:]} of their .json files"
        if self._kind == "txt" and 2 * len(self._texts) > count + 1 and not all(map(_is_class, self._texts)):
            raise SourceError(
                f"{self._tree.path}: has {count:,} images with {len(self._texts):,} different texts in {source} "
                f"({first(self._texts)}), which are captions and not classes; give each sample a .cls file, or a field "
                f"{FIELDS[0]} in its .json"
            )
        self.notes.append(f"the classes of the images are those in {source}")

    def _label_kind(self) -> str:
        """Returns where the labels are: "cls", "json:FIELD" or "txt", from the first sample that has any.

        Raises SourceError if the samples have none.
        """
        seen: set[str] = set()
        fields: list[str] = []
        for shard in self._shards:
            for sample in _samples(self._open(shard)):
                seen |= sample.files.keys()
                if seen & set(CLASS_ENDINGS):
                    return "cls"
                if "json" in sample.files and sample.image and not fields:
                    content = self._json(sample.files["json"])
                    fields = list(content)
                if found := next((field for field in FIELDS if field in fields), None):
                    return f"json:{found}"
        if "txt" in seen:
            return "txt"
        raise SourceError(
            f"{self._tree.path}: has WebDataset samples of {first(sorted(seen), 6)} without a label"
            + (f" (fields of the .json: {first(fields, 12)})" if fields else "")
            + f"; give each a .cls file, or a field {FIELDS[0]} in its .json"
        )

    def _read_labels(self, samples: list[Sample]) -> Iterator[str]:
        """Yields the label of each sample, "" where it has none."""
        endings = CLASS_ENDINGS if self._kind == "cls" else (self._kind[:4].rstrip(":"),)
        found = [next((sample.files[e] for e in endings if e in sample.files), None) for sample in samples]
        if large := next((at for at in found if at and at.size > MAX_LABEL), None):
            raise SourceError(f"{self.root}: {large}: {large.size:,} bytes are too many for a label; correct this file")
        with LocatorReader(self.root) as reader:
            present = [at for at in found if at]
            # Locally, reading each label alone leaves out the images between them.
            read = reader.read_many(present) if is_url(self.root) else map(reader.read, present)
            for at in found:
                if at is None:
                    yield ""
                    continue
                data = next(read)
                if isinstance(data, ImageError):
                    raise SourceError(f"{self.root}: {at}: {data}")
                yield self._label(data, at)

    def _label(self, data: bytes, at: Locator) -> str:
        if self._kind.startswith("json:"):
            value = _parsed(data, at).get(self._kind[5:])
            if isinstance(value, list | dict):
                raise SourceError(
                    f"{self.root}: {at}: its field {self._kind[5:]} is not one label: a list or an object"
                )
            return label_text(value)
        return label_text(data.decode("utf-8-sig", "replace").strip().strip("\"'"))

    def _json(self, at: Locator) -> dict[str, Any]:
        if at.size > MAX_LABEL:
            raise SourceError(f"{self.root}: {at}: {at.size:,} bytes are too many for a label; correct this file")
        with LocatorReader(self.root) as reader:
            return _parsed(reader.read(at), at)

    def _classes(self) -> tuple[dict[str, str], list[str]]:
        """Returns the class of each label, and all classes in sorted order."""
        if all(name in self._tree.files for name in _OURS):
            with LocatorReader(self.root) as reader:
                data = reader.read(self._tree.files[_OURS[1]])
            try:
                with Isolated() as isolated:
                    wnids = isolated.call(read_texts, BytesFile(data), "wnid")
            except (Damaged, ChildDied) as error:
                raise SourceError(f"{self._tree.path}: labels.parquet is damaged: {error}") from None
            if all(re.fullmatch("[0-9]{1,9}", text) and int(text) < len(wnids) for text in self._texts if text):
                return {text: wnids[int(text)] for text in self._texts if text}, sorted(wnids)
        class_of, wnids = classes_of(self._texts)
        if not wnids:
            raise SourceError(f"{self._tree.path}: none of its samples has a label; give each a .cls file")
        return class_of, wnids

    def _open(self, shard: str) -> FileTree:
        return FileTree(self.root, shard) if shard else self._tree

    def records(self, split: str) -> Iterator[Record]:
        truncated, without_image = [], []
        for shard in self._shards:
            if SPLITS.index(split) not in self._splits[shard]:
                continue
            tree = self._open(shard)
            numbers = itertools.count()
            for sample in _samples(tree):
                if sample.image is None:
                    without_image.append(sample.key)
                    continue
                number = next(numbers)
                if SPLITS[self._splits[shard][number]] != split:
                    continue
                text = self._texts[self._labels[shard][number]]
                is_stored = text or split == "test"
                locator = sample.image if is_stored else sample.image.unreadable("the sample has no label")
                yield Record(sample.key.rpartition("/")[2], (self._class_of[text],) if text else (), locator)
            if tree.truncated:
                truncated.append(tree.truncated)
        self.notes += counted(without_image, f"samples without an image, beside those of {split}")
        if truncated:
            raise TruncatedSourceError("; ".join(truncated))


def _is_class(text: str) -> bool:
    return bool(re.fullmatch(r"n\d{8}|\d+|", text))


def _parsed(data: bytes, at: Locator) -> dict[str, Any]:
    """Returns a JSON object; a value that is not an object is the field label."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{at}: is not JSON: {error}") from None
    return value if isinstance(value, dict) else {FIELDS[0]: value}


def _shards(tree: FileTree) -> list[str]:
    """Returns the tars in a folder, sorted."""
    plain = (locator.file for locator in tree.files.values() if not locator.member)
    return sorted(name for name in plain if name.endswith(".tar"))


def _samples(tree: FileTree) -> Iterator[Sample]:
    """Yields the samples of an archive or folder, in the order of their first files.

    Files of one sample need not stand beside each other. A sample's name ends at the first dot. In an archive a label
    without an image is a sample too.
    """
    samples: dict[str, Sample] = {}
    for name, locator in tree.files.items():
        folder, slash, base = name.rpartition("/")
        stem, _, ending = base.partition(".")
        key = f"{folder}{slash}{stem}"
        samples.setdefault(key, Sample(key, {})).files.setdefault(ending.lower(), locator)
    for sample in samples.values():
        stated = [sample.files[ending] for ending in (*CLASS_ENDINGS, "json", "txt") if ending in sample.files]
        if sample.image or any(locator.member for locator in stated):
            yield sample


def _has_samples(tree: FileTree) -> bool:
    """Whether images have a .cls file, or without class folders a .json or .txt file."""
    if not any(name.endswith(_ENDINGS) for name in tree.files):
        return False
    folders, found = set(), False
    for sample in _samples(tree):
        if not sample.image:
            continue
        if sample.files.keys() & set(CLASS_ENDINGS):
            return True
        folders.add(sample.key.rpartition("/")[0])
        found |= bool(sample.files.keys() & {"json", "txt"})
    return found and len(folders) == 1
