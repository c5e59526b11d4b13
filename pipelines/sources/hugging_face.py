"""Hugging Face's layout: parquet files per split, one row per image with its label."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np

from imgtool.pipelines.archives.file_tree import FileTree
from imgtool.pipelines.archives.parquet import Damaged
from imgtool.pipelines.records import SPLIT_NAMES, Record, key_of, sorted_wnids
from imgtool.pipelines.sources.layout import (
    SPLITS,
    classes_of,
    classes_of_numbers,
    counted,
    first,
    split_in_name,
)
from imgtool.pipelines.sources.parquet_columns import LABELS, UNLABELLED, ParquetFile, read_columns
from imgtool.pipelines.storage.folders import join, open_folder
from imgtool.pipelines.storage.isolated import ChildDied, Isolated
from imgtool.pipelines.storage.passed_over import ARCHIVE, NOT_AN_IMAGE, PassedOver, not_an_image
from imgtool.pipelines.threads import available_cpus
from imgtool.wordnet import orders
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

CONCURRENT_READS = 8
"""Files that are opened concurrently, so that their reads overlap."""
_SPLIT = re.compile(rf"(?:^|/)({'|'.join(SPLIT_NAMES)})(?:[-_.][^/]*)?(?:/[^/]+)?\.parquet$")
_PART = re.compile(r"-(\d{5})-of-(\d{5})")
_WNID_IN_NAME = re.compile(r"(.+)_(n\d{8})|(n\d{8})_\d+")


class HuggingFace:
    """Files like ``train-00000-of-00294.parquet``, ``data/validation-….parquet`` or ``test/0000.parquet``.

    The image column is a struct of bytes and path, or a binary column with a usual name (``IMAGES`` in
    parquet_columns.py). The label column has a name in ``LABELS`` and holds integers or texts. A row without a label,
    which is negative, null or empty, cannot be stored, except in a test split, which may also lack the column. The
    class of a label is taken from the first of these that is available:

    - the label's name among the class names in the file, if these are wnids;
    - the label as an index into the 1000 ILSVRC2012 wnids **in sorted order**, if the class names are ILSVRC2012's, or
      if there are no names and the highest label is 999;
    - the wnid in the path of any row with this label: at the end (``n01440764_10026_n01440764.JPEG``, where it is
      removed from the key) or before the number (``n01440764_10026.JPEG``);
    - the label's name or text; else its number (``007``).

    A wnid in a row's path has to agree with the class of its label, else SourceError is raised; a row without a label
    has the class in its path. A split is truncated if
    one of its files is, or if one is missing among those that ``-of-00294`` counts.
    """

    layout: ClassVar[str] = "hugging-face"

    @classmethod
    def recognise(cls, tree: FileTree) -> bool:
        return bool(_files_of(tree)[0]) and "dataset.json" not in tree.files

    @classmethod
    def from_tree(cls, tree: FileTree) -> HuggingFace:
        names, others = map(set, _files_of(tree))
        source = cls(tree.root, sorted(names), complete=True)
        source.passed_over = tree.passed_over.without(NOT_AN_IMAGE, ARCHIVE)  # its parquet files
        beside = [name for name, at in tree.files.items() if at.file not in names]
        images = set(tree.images(beside))
        for name in beside:
            if tree.files[name].file in others:
                source.passed_over.add("parquet file that is not named for a split", name)
            else:
                source.passed_over.add("image beside the parquet files" if name in images else not_an_image(name), name)
        source.notes += counted(sorted(others), "parquet files that are not named for a split, passed over")
        return source

    def __init__(self, root: str, names: list[str], *, complete: bool = False) -> None:
        """``names`` are the files below ``root``; a file without a split's name belongs to train. ``complete``: these
        are all files of the data set, so one that is not among them is missing."""
        self.root = root
        self.passed_over = PassedOver()
        self._folder = open_folder(root)
        self.ilsvrc2012_ids: dict[str, int] = {}
        self.notes: list[str] = []
        self._truncated: dict[str, list[str]] = collections.defaultdict(list)
        by_split = _by_split(root, sorted(names))
        if complete:
            for split, files in by_split.items():
                self._truncated[split] += _missing(root, split, files)
        self.splits = tuple(by_split)
        self._files: dict[str, list[ParquetFile]] = {}
        concurrent = min(len(names), CONCURRENT_READS if self._folder.remote else available_cpus(), CONCURRENT_READS)
        with contextlib.ExitStack() as stack:
            readers = [stack.enter_context(Isolated()) for _ in range(concurrent)]
            pool = stack.enter_context(ThreadPoolExecutor(concurrent))
            for split, files in by_split.items():
                opened = pool.map(self._open, files, itertools.repeat(split), itertools.repeat(readers))
                self._files[split] = [file for file in opened if file]
        self._class_of, self.wnids = self._classes()
        self._check_classes()

    def records(self, split: str) -> Iterator[Record]:
        known = set(self.wnids)
        for file in self._files[split]:
            paths = file.paths.to_pylist() if file.paths is not None else itertools.repeat(None)
            rows = zip(file.labels.tolist(), paths, file.locators(), strict=False)
            for row, (label, path, locator) in enumerate(rows):
                key, in_path = _key_and_wnid(path)
                wnid = self._class_of.get(label, "") if label >= 0 else in_path
                if (wnid or label >= 0) and (wnid not in known or (in_path and in_path != wnid)):
                    but = f"its path says {in_path}" if in_path else f"there are {len(self._class_of)} classes"
                    its = f"its label is {label} ({wnid or 'no class'}), but {but}"
                    raise SourceError(f"{join(self.root, file.name)}: row {row}: {its}; correct or remove this row")
                if not wnid and split != "test":
                    locator = locator.unreadable("the row has no label")
                yield Record(key or f"{key_of(file.name)}_{row:06d}", (wnid,) if wnid else (), locator)
        if self._truncated[split]:
            raise TruncatedSourceError("; ".join(self._truncated[split]))

    def _open(self, name: str, split: str, readers: list[Isolated]) -> ParquetFile | None:
        """Reads a file's labels and paths. Returns None if the file is truncated, and notes this for ``records``."""
        path = join(self.root, name)
        with contextlib.closing(self._folder.open(name)) as file:
            head, tail = file.read(0, 40), file.read(max(file.size - 4, 0), 4)
            if head.startswith(b"version https://git-lfs"):
                raise SourceError(f"{path}: is a Git LFS pointer, not the file; fetch the files with: git lfs pull")
            if head[:4] == b"PAR1" != tail:
                self._truncated[split].append(f"{path} is truncated: it ends at byte {file.size} without a footer")
                return None
            reader = readers.pop()  # one per thread
            try:
                return reader.call(read_columns, file, name, split == "test")
            except ChildDied as error:
                raise SourceError(f"{path}: is damaged: {error}; download it again") from None
            except Damaged as error:
                raise SourceError(f"{path}: {error}") from None
            except OSError as error:
                cause = " ".join(str(error).split())
                raise SourceError(f"{path}: is damaged or not a parquet file; download it again ({cause})") from None
            finally:
                readers.append(reader)

    def _classes(self) -> tuple[dict[int, str], list[str]]:
        """Returns the class of each label, and all classes in sorted order."""
        files = [file for of_split in self._files.values() for file in of_split]
        named = [file for file in files if file.class_names is not None]
        if any(file.class_names != named[0].class_names for file in named):
            raise SourceError(f"{self.root}: its files state different class names; give files of one data set")
        names = named[0].class_names if named else None
        texts = self._number_texts()
        files = [file for of_split in self._files.values() for file in of_split]
        highest = max((int(file.labels.max(initial=UNLABELLED)) for file in files), default=UNLABELLED)
        if texts:
            in_paths = {} if all(re.fullmatch(r"n\d{8}", text) for text in texts) else self._classes_in_paths(files)
            class_of, wnids = classes_of(texts)
            return (
                (in_paths, sorted_wnids(in_paths.values()))
                if in_paths
                else ({number: class_of[text] for number, text in enumerate(texts)}, wnids)
            )
        if names and all(re.fullmatch(r"n\d{8}", name) for name in names):
            table = names
        elif _is_ilsvrc2012(names) if names else highest == 999:
            table = orders.ilsvrc2012_wnids()
        else:
            in_paths = self._classes_in_paths(files)
            if in_paths:
                return in_paths, sorted_wnids(in_paths.values())
            if not names:
                return classes_of_numbers(
                    {label for file in files for label in np.unique(file.labels).tolist()} - {UNLABELLED}
                )
            table = names
        if unnamed := [i for i, name in enumerate(table) if not name.strip()]:
            raise SourceError(f"{self.root}: class {unnamed[0]} has no name; name it in the files' metadata")
        if len(set(table)) < len(table):
            twice = next(name for name, count in collections.Counter(table).items() if count > 1)
            raise SourceError(f"{self.root}: two of its classes are named {twice!r}; rename one in the files' metadata")
        return dict(enumerate(table)), sorted_wnids(table)

    def _number_texts(self) -> list[str]:
        """Returns all texts, sorted. Where a file's column is text, its labels become positions in this list."""
        texts = sorted({text for files in self._files.values() for file in files for text in file.texts or () if text})
        number = {text: i for i, text in enumerate(texts)} | {"": UNLABELLED}
        for files in self._files.values():
            for i, file in enumerate(files):
                if file.texts is not None:
                    table = np.array([*(number[text] for text in file.texts), UNLABELLED])
                    files[i] = file._replace(labels=table[file.labels])
                elif texts and file.labels.max(initial=UNLABELLED) >= 0:
                    raise SourceError(
                        f"{join(self.root, file.name)}: its labels are numbers, those of others are texts"
                    )
        return texts

    def _check_classes(self) -> None:
        """Raises an error if no row has a label; notes columns of images that are not read."""
        files = [file for of_split in self._files.values() for file in of_split]
        truncated = "; ".join(message for messages in self._truncated.values() for message in messages)
        if truncated and not files:
            raise TruncatedSourceError(truncated)
        if not self.wnids:
            rows = sum(len(file.labels) for file in files)
            raise SourceError(
                f"{self.root}: none of its {rows:,} rows has a label ({', '.join(LABELS)}); give labelled files"
                + (", which state the classes, beside those of test" if self.splits == ("test",) else "")
                + (f"; {truncated}" if truncated else "")
            )
        ignored = sorted({name for file in files for name in file.ignored})
        if ignored:
            self.notes.append(f"the images are those of the column {files[0].column}, not of {first(ignored)}")

    def _classes_in_paths(self, files: list[ParquetFile]) -> dict[int, str]:
        found: dict[int, str] = {}
        for file in files:
            if file.paths is not None:
                for label, path in zip(file.labels.tolist(), file.paths.to_pylist(), strict=True):
                    if label >= 0 and (wnid := _key_and_wnid(path)[1]):
                        found.setdefault(label, wnid)
        return found


def _files_of(tree: FileTree) -> tuple[list[str], list[str]]:
    """Returns the parquet files to read, and those to pass over: where some are named for a split, the others.

    Without any such name all files belong to train, unless there are images that are not in them. Hidden folders, such
    as a clone's .git, are ignored.
    """
    names = [locator.file for locator in tree.files.values() if not locator.member]
    names = [name for name in names if name.endswith(".parquet")]
    named = [name for name in names if _split_of(name)]
    if named or not names:
        return named, sorted(set(names) - set(named))
    return ([], names) if tree.images() else (names, [])


def _split_of(name: str) -> str | None:
    match = _SPLIT.search(name.lower())
    return SPLIT_NAMES[match[1]] if match else split_in_name(os.path.basename(name))


def _missing(root: str, split: str, names: list[str]) -> list[str]:
    """Returns a message about missing files, if the names of the others count more files than there are."""
    parts = {(int(match[2]), int(match[1])) for name in names if (match := _PART.search(name))}
    totals = {total for total, _ in parts}
    if len(totals) != 1 or len(parts) == max(totals):
        return []
    return [f"{root}: {max(totals) - len(parts)} of {max(totals)} {split} files are missing"]


def _by_split(root: str, names: list[str]) -> dict[str, list[str]]:
    """Returns the files of each split, in the order train, val, test."""
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in names:
        found[_split_of(name) or "train"].append(name)
    for split, files in found.items():
        folders = sorted({os.path.dirname(name) or "." for name in files})
        if len(folders) > 1:
            raise SourceError(
                f"{root}: has several sets of {split} files, in {', '.join(folders)}; give one of these folders"
            )
    return {split: files for split, files in found.items() if files}


def _is_ilsvrc2012(names: list[str]) -> bool:
    # The names' wording differs between uploads ("tench, Tinca tinca"); their order does not.
    return len(names) == 1000 and names[0].startswith("tench") and names[-1].startswith("toilet tissue")


def _key_and_wnid(path: str | None) -> tuple[str, str]:
    """Returns the key and the wnid in an image's file name, "" for what it does not state."""
    stem = key_of(path) if path else ""
    match = _WNID_IN_NAME.fullmatch(stem)
    if not match:
        return stem, ""
    return (match[1], match[2]) if match[2] else (stem, match[3])
