"""WebDataset: tars in which the files of a sample differ in their endings, as imgtool and img2dataset write them."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from imgtool.pipelines.annotations.samples import CLASS_ENDINGS, LABEL_ENDINGS, Sample, samples_of
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
from imgtool.pipelines.storage.folders import BytesFile, is_url, join
from imgtool.pipelines.storage.isolated import ChildDied, Isolated
from imgtool.pipelines.storage.passed_over import ARCHIVE, NOT_AN_IMAGE, PassedOver, not_an_image
from imgtool.wordnet.errors import ImageError, SourceError, TruncatedSourceError

FIELDS = ("label", "cls", "class", "wnid", "synset", "class_name", "label_name", "category", "target", "class_id")
"""The fields of a sample's JSON that state its class, the first that is present."""
MAX_LABEL = 1 << 22
"""Bytes of the largest label file that is read."""
SPLITS = ("train", "val", "minival", "test")
_OURS = ("dataset.json", "labels.parquet")
_ENDINGS = tuple(f".{ending}" for ending in LABEL_ENDINGS)
_JSON_SAMPLES = 1000
"""Samples whose JSON is searched for a field that states the class."""
_HOLDOUT = re.compile(r"(?:^|/)minival/")


class WebDataset:
    """``0001.jpg`` with ``0001.cls``, ``0001.json`` or ``0001.txt``, … in one tar, or in several in a folder.

    A tar belongs to the split that its name or folder names (``train-0000.tar``), else to train. The label is the
    content of .cls, else a field of the JSON (``FIELDS``), else the text if at most every second text differs: captions
    are no classes. Whole numbers are class indices: among the class table of a data set that imgtool prepared, else
    those of the 1000 wnids, or the numbers are the classes' names. Samples without a label, or without an image as
    img2dataset leaves them for dead links, are not stored. A sample's image has an image's ending or, if none has one,
    an image's content; its further files are passed over, like the files beside the tars.
    """

    layout: ClassVar[str] = "webdataset"

    @classmethod
    def recognise(cls, tree: FileTree) -> bool:
        for shard in cls.shards(tree):
            with contextlib.suppress(
                SourceError, TruncatedSourceError
            ):  # damaged ones are reported if another one has samples
                if _has_samples(FileTree(tree.root, shard)):
                    return True
        return _has_samples(tree)

    @staticmethod
    def shards(tree: FileTree) -> list[str]:
        """Returns the tars in a folder, sorted."""
        plain = (locator.file for locator in tree.files.values() if not locator.member)
        return sorted(name for name in plain if name.lower().endswith(".tar"))

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self.root = tree.root
        self.ilsvrc2012_ids: dict[str, int] = {}
        self.notes: list[str] = []
        self.passed_over = tree.passed_over.without(NOT_AN_IMAGE, ARCHIVE)  # its tars and label files
        self._shards = self.shards(tree) or [""]
        self._truncated: dict[str, str] = {}
        """The message about each truncated shard."""
        self._opened: str | None = None  # the shard that the samples in _last are of
        self._last: list[Sample] = []
        self._passed_over = PassedOver()
        self._kind = self._label_kind()
        numbers: dict[str, int] = {}
        # of each shard, the split and label of each sample with an image: positions in SPLITS and among all texts
        self._splits: dict[str, list[int]] = {}
        self._labels: dict[str, npt.NDArray[np.int64]] = {}
        for shard in self._shards:
            found = self._samples(shard)
            if shard:
                self.passed_over.update(self._passed_over)
            self._pass_over(found)
            samples = [sample for sample in found if sample.image]
            self._splits[shard] = [SPLITS.index(self._split(shard, sample)) for sample in samples]
            labels = [numbers.setdefault(text, len(numbers)) for text in self._read_labels(samples)]
            self._labels[shard] = np.array(labels, np.int64)
        present = {split for splits in self._splits.values() for split in splits}
        self.splits = tuple(split for number, split in enumerate(SPLITS) if number in present)
        self._texts = list(numbers)
        self._check_texts(sum(map(len, self._labels.values())))
        self._class_of, self.wnids = self._classes()
        if self._shards != [""]:
            self._pass_over_beside_shards()

    def _split(self, shard: str, sample: Sample) -> str:
        """Returns the split that the shard's name or folder names, or in a single archive the sample's folder."""
        name = shard or f"{self._tree.path.rpartition('/')[2]}/{sample.key.rpartition('/')[0]}"
        return "minival" if _HOLDOUT.search(name) else split_in_name(name) or "train"

    def _pass_over(self, samples: list[Sample]) -> None:
        """Counts the files that are neither an image nor the label of one."""
        for sample in samples:
            files = [*sample.files.values(), *sample.others]
            if sample.image is None:
                for at in files:
                    name = at.member or at.file
                    if name not in _OURS:
                        is_sample = sample.is_labelled and at.member
                        self.passed_over.add(
                            "file of a sample without an image" if is_sample else not_an_image(name), name
                        )
                continue
            label = self._label_of(sample)
            if len(files) == 1 + (label is not None):
                continue
            for at in files:
                if at not in (sample.image, label):
                    name = at.member or at.file
                    is_image = name.lower().endswith(IMAGE_SUFFIXES)
                    self.passed_over.add(f"further {'image' if is_image else 'file'} of a sample", name)

    def _pass_over_beside_shards(self) -> None:
        """Counts the files of the folder that are no shards."""
        used = {*self._shards, *(_OURS if self._is_ours() else ())}
        others = [name for name, at in self._tree.files.items() if at.file not in used]
        images = set(self._tree.images(others))
        for name in others:
            self.passed_over.add("image beside the tars" if name in images else not_an_image(name), name)

    def _is_ours(self) -> bool:
        return all(name in self._tree.files for name in _OURS)

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
        fields: dict[str, None] = {}
        read = 0
        for shard in self._shards:
            for sample in self._samples(shard):
                seen |= sample.files.keys()
                if seen & set(CLASS_ENDINGS):
                    return "cls"
                if "json" in sample.files and sample.image and read < _JSON_SAMPLES:
                    fields |= dict.fromkeys(self._json(sample.files["json"]))
                    read += 1
                if found := next((field for field in FIELDS if field in fields), None):
                    return f"json:{found}"
        if "txt" in seen:
            return "txt"
        raise SourceError(
            f"{self._tree.path}: has WebDataset samples of {first(sorted(seen), 6)} without a label"
            + (f" (fields of the .json: {first(list(fields), 12)})" if fields else "")
            + f"; give each a .cls file, or a field {FIELDS[0]} in its .json"
        )

    def _read_labels(self, samples: list[Sample]) -> Iterator[str]:
        """Yields the label of each sample, "" where it has none."""
        found = [self._label_of(sample) for sample in samples]
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

    def _label_of(self, sample: Sample) -> Locator | None:
        endings = CLASS_ENDINGS if self._kind == "cls" else (self._kind[:4].rstrip(":"),)
        return next((sample.files[ending] for ending in endings if ending in sample.files), None)

    def _label(self, data: bytes, at: Locator) -> str:
        if self._kind.startswith("json:"):
            value = _parsed(data, f"{self.root}: {at}").get(self._kind[5:])
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
            return _parsed(reader.read(at), f"{self.root}: {at}")

    def _classes(self) -> tuple[dict[str, str], list[str]]:
        """Returns the class of each label, and all classes in sorted order."""
        if self._is_ours():
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

    def _samples(self, shard: str) -> list[Sample]:
        """Returns a shard's samples. Of a truncated one these are the complete ones; ``_truncated`` has the message."""
        if shard != self._opened:
            tree = self._open(shard)
            self._last = samples_of(tree) if tree else []
            self._passed_over = tree.passed_over if tree else PassedOver()
            self._opened = shard
        return self._last

    def _open(self, shard: str) -> FileTree | None:
        path = join(self.root, shard)
        try:
            tree = FileTree(self.root, shard) if shard else self._tree
        except TruncatedSourceError as error:
            self._truncated[shard] = str(error).replace(shard, path, 1)
            return None
        except SourceError as error:
            raise SourceError(f"{str(error).replace(shard, path, 1)}, or move it out of the folder") from None
        if tree.truncated:
            self._truncated[shard] = tree.truncated.replace(shard, path, 1) if shard else tree.truncated
        return tree

    def records(self, split: str) -> Iterator[Record]:
        without_image = []
        for shard in self._shards:
            if SPLITS.index(split) not in self._splits[shard]:
                continue
            numbers = itertools.count()
            for sample in self._samples(shard):
                if sample.image is None:
                    if sample.is_labelled and any(at.member for at in sample.files.values()):
                        without_image.append(sample.key)
                    continue
                number = next(numbers)
                if SPLITS[self._splits[shard][number]] != split:
                    continue
                text = self._texts[self._labels[shard][number]]
                is_stored = text or split == "test"
                locator = sample.image if is_stored else sample.image.unreadable("the sample has no label")
                yield Record(sample.key.rpartition("/")[2], (self._class_of[text],) if text else (), locator)
        self.notes += counted(without_image, f"samples without an image, beside those of {split}")
        if truncated := [message for shard, message in self._truncated.items() if self._reports(split, shard)]:
            raise TruncatedSourceError("; ".join(truncated))

    def _reports(self, split: str, shard: str) -> bool:
        """Whether this split reports that the shard is truncated: one that has samples of it, else the last."""
        of_shard = {SPLITS[number] for number in self._splits[shard]}
        return split in (of_shard or {self.splits[-1]})


def _is_class(text: str) -> bool:
    return bool(re.fullmatch(r"n\d{8}|\d+|", text))


def _parsed(data: bytes, name: str) -> dict[str, Any]:
    """Returns a JSON object; a value that is not an object is the field label."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{name}: is not JSON: {error}; correct or remove it") from None
    return value if isinstance(value, dict) else {FIELDS[0]: value}


def _has_samples(tree: FileTree) -> bool:
    """Whether images have a .cls file or, where they are in no class folders, a .json or .txt file."""
    if not any(name.lower().endswith(_ENDINGS) for name in tree.files):
        return False
    folders: set[str] = set()
    found: Sample | None = None
    for sample in samples_of(tree):
        if not sample.image:
            continue
        if not sample.files.keys().isdisjoint(CLASS_ENDINGS):
            return True
        folders.add(sample.key.rpartition("/")[0])
        if found is None and sample.is_labelled:
            found = sample
    if not found or len(folders) > 1:
        return False
    folder = folders.pop()
    return not folder or split_in_name(folder) is not None or _states_class(tree, found)


def _states_class(tree: FileTree, sample: Sample) -> bool:
    """Whether the sample's JSON has a field for its class. Others describe an image in a class folder."""
    if "json" not in sample.files:
        return False
    with LocatorReader(tree.root) as reader:
        try:
            fields = _parsed(reader.read(sample.files["json"]), sample.key)
        except (SourceError, ImageError):
            return False
    return any(field in fields for field in FIELDS)
