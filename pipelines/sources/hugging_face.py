"""Hugging Face's layout: parquet files per split, one row per image with its label."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from imgtool.pipelines.archives import parquet
from imgtool.pipelines.archives.file_tree import FileTree
from imgtool.pipelines.archives.parquet import Damaged
from imgtool.pipelines.records import Locator, Record, key_of, sorted_wnids
from imgtool.pipelines.storage.folders import join, open_folder
from imgtool.pipelines.storage.passed_over import PassedOver
from imgtool.wordnet import orders
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

SPLITS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}
IMAGES, LABELS = ("image", "img", "jpg"), ("label", "labels", "fine_label", "cls")
UNLABELLED = -1
CONCURRENT_READS = 8
"""Files that are opened concurrently, so that their reads overlap."""
_SPLIT = re.compile(rf"(?:^|/)({'|'.join(SPLITS)})(?:[-_.][^/]*)?(?:/[^/]+)?\.parquet$")
_PART = re.compile(r"-(\d{5})-of-(\d{5})")
_WNID_IN_NAME = re.compile(r"(.+)_(n\d{8})|(n\d{8})_\d+")


class _ParquetFile(NamedTuple):
    """What is read of a file when the source is opened: its row groups, and each row's label (``UNLABELLED`` where
    null) and path. ``column`` is the path of the images' column in the schema."""

    name: str
    column: str
    row_groups: list[parquet.RowGroup]
    labels: npt.NDArray[np.int64]
    paths: pa.ChunkedArray | None
    class_names: list[str] | None

    def locators(self) -> Iterator[Locator]:
        """Yields the locator of each row."""
        row_of_file = itertools.count()
        for number, group in enumerate(self.row_groups):
            for row in range(group.rows):
                yield parquet.locator(self.name, self.column, number, group.offset, row, next(row_of_file))


class HuggingFace:
    """Files like ``train-00000-of-00294.parquet``, ``data/validation-….parquet`` or ``test/0000.parquet``.

    The image column is a struct of bytes and path, or a binary column named image, img or jpg. The label column is an
    integer column named label, labels, fine_label or cls; unlabelled rows are negative or null. The class of a label is
    taken from the first of these that is available:

    - the label's name among the class names in the file, if these are wnids;
    - the label as an index into the 1000 ILSVRC2012 wnids **in sorted order**, if the class names are ILSVRC2012's, or
      if there are no names and the highest label is 999;
    - the wnid in the path of any row with this label: at the end (``n01440764_10026_n01440764.JPEG``, where it is
      removed from the key) or before the number (``n01440764_10026.JPEG``);
    - the label's name; else its number (``007``).

    A wnid in a row's path has to agree with the class of its label, else SourceError is raised; a row without a label
    has the class in its path. A split is truncated if
    one of its files is, or if one is missing among those that ``-of-00294`` counts.
    """

    layout: ClassVar[str] = "hugging-face"

    @classmethod
    def recognise(cls, tree: FileTree) -> bool:
        return bool(_files_of(tree)) and "dataset.json" not in tree.files

    @classmethod
    def from_tree(cls, tree: FileTree) -> HuggingFace:
        source = cls(tree.root, _files_of(tree), complete=True)
        source.passed_over = tree.passed_over
        return source

    def __init__(self, root: str, names: list[str], *, complete: bool = False) -> None:
        """``names`` are the files below ``root``; a file without a split's name belongs to train. ``complete``: these
        are all files of the data set, so one that is not among them is missing."""
        self.root = root
        self.passed_over = PassedOver()
        self._folder = open_folder(root)
        self.ilsvrc2012_ids: dict[str, int] = {}
        self._truncated: dict[str, list[str]] = collections.defaultdict(list)
        by_split = _by_split(root, sorted(names))
        if complete:
            for split, files in by_split.items():
                self._truncated[split] += _missing(root, split, files)
        self.splits = tuple(by_split)
        self._files: dict[str, list[_ParquetFile]] = {}
        with ThreadPoolExecutor(CONCURRENT_READS) as pool:
            for split, files in by_split.items():
                opened = pool.map(self._open, files, itertools.repeat(split))
                self._files[split] = [file for file in opened if file]
        self._class_of, self.wnids = self._classes()

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
                yield Record(key or f"{key_of(file.name)}_{row:06d}", (wnid,) if wnid else (), locator)
        if self._truncated[split]:
            raise TruncatedSourceError("; ".join(self._truncated[split]))

    def _open(self, name: str, split: str) -> _ParquetFile | None:
        """Reads a file's labels and paths. Returns None if the file is truncated, and notes this for ``records``."""
        path = join(self.root, name)
        with contextlib.closing(self._folder.open(name)) as file:
            head, tail = file.read(0, 40), file.read(max(file.size - 4, 0), 4)
            if head.startswith(b"version https://git-lfs"):
                raise SourceError(f"{path}: is a Git LFS pointer, not the file; fetch the files with: git lfs pull")
            if head[:4] == b"PAR1" != tail:
                self._truncated[split].append(f"{path} is truncated: it ends at byte {file.size} without a footer")
                return None
            try:
                with parquet.open_parquet(file) as opened:
                    return _contents(opened, name, file.size)
            except (Damaged, pa.ArrowException, OSError, ValueError, KeyError) as error:
                raise SourceError(f"{path}: {' '.join(str(error).split())}") from None

    def _classes(self) -> tuple[dict[int, str], list[str]]:
        """Returns the class of each label, and all classes in sorted order."""
        files = [file for of_split in self._files.values() for file in of_split]
        named = [file for file in files if file.class_names is not None]
        if any(file.class_names != named[0].class_names for file in named):
            raise SourceError(f"{self.root}: its files state different class names; give files of one data set")
        names = named[0].class_names if named else None
        highest = max((int(file.labels.max(initial=UNLABELLED)) for file in files), default=UNLABELLED)
        if names and all(re.fullmatch(r"n\d{8}", name) for name in names):
            table = names
        elif _is_ilsvrc2012(names) if names else highest == 999:
            table = orders.ilsvrc2012_wnids()
        else:
            in_paths = self._classes_in_paths(files)
            if in_paths:
                return in_paths, sorted_wnids(in_paths.values())
            table = names or [f"{label:0{max(3, len(str(highest)))}d}" for label in range(min(highest + 1, 1 << 20))]
        if len(set(table)) < len(table):
            twice = next(name for name, count in collections.Counter(table).items() if count > 1)
            raise SourceError(f"{self.root}: two of its classes are named {twice!r}; rename one in the files' metadata")
        return dict(enumerate(table)), sorted_wnids(table)

    def _classes_in_paths(self, files: list[_ParquetFile]) -> dict[int, str]:
        found: dict[int, str] = {}
        for file in files:
            if file.paths is not None:
                for label, path in zip(file.labels.tolist(), file.paths.to_pylist(), strict=True):
                    if label >= 0 and (wnid := _key_and_wnid(path)[1]):
                        found.setdefault(label, wnid)
        return found


def _files_of(tree: FileTree) -> list[str]:
    """Returns the parquet files that are named for a split. Hidden folders, such as a clone's .git, are ignored."""
    names = (locator.file for locator in tree.files.values() if not locator.member)
    return [name for name in names if _SPLIT.search(name) and not re.search(r"(^|/)\.", name)]


def _missing(root: str, split: str, names: list[str]) -> list[str]:
    """Returns a message about missing files, if the names of the others count more files than there are."""
    parts = {(int(match[2]), int(match[1])) for name in names if (match := _PART.search(name))}
    totals = {total for total, _ in parts}
    if len(totals) != 1 or len(parts) == max(totals):
        return []
    return [f"{root}: {max(totals) - len(parts)} of {max(totals)} {split} files are missing"]


def _by_split(root: str, names: list[str]) -> dict[str, list[str]]:
    """Returns the files of each split, in the order train, val, test."""
    found: dict[str, list[str]] = {split: [] for split in SPLITS.values()}
    for name in names:
        match = _SPLIT.search(name)
        found[SPLITS[match[1]] if match else "train"].append(name)
    for split, files in found.items():
        folders = sorted({os.path.dirname(name) or "." for name in files})
        if len(folders) > 1:
            raise SourceError(
                f"{root}: has several sets of {split} files, in {', '.join(folders)}; give one of these folders"
            )
    return {split: files for split, files in found.items() if files}


def _contents(opened: pq.ParquetFile, name: str, size: int) -> _ParquetFile:
    metadata, schema = opened.metadata, opened.schema_arrow
    if metadata.num_rows > size:
        raise Damaged("is damaged: its footer states more rows than the file has bytes; download it again")
    image, bytes_path, name_path = _image_column(schema)
    label = next((column for column in LABELS if column in schema.names), None)
    if not image or label is None or not pa.types.is_integer(schema.field(label).type):
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise Damaged(
            f"has no column of images ({', '.join(IMAGES)}) or none of integer labels ({', '.join(LABELS)}); rename "
            f"its columns, which are {columns}"
        )
    row_groups = parquet.row_groups(opened, bytes_path, size)
    batches = list(opened.iter_batches(1 << 16, columns=[label, name_path] if name_path else [label]))
    labels = [np.asarray(batch[label].cast(pa.int64()).fill_null(UNLABELLED)) for batch in batches]
    paths = None
    if name_path:
        paths = pa.chunked_array(
            [batch[image].field("path").cast(pa.large_string()) for batch in batches], pa.large_string()
        )
        paths.validate(full=True)  # raises ArrowInvalid if a path is not UTF-8
    all_labels = np.concatenate(labels or [np.zeros(0, np.int64)])
    file = _ParquetFile(name, bytes_path, row_groups, all_labels, paths, _class_names(schema, label))
    if not len(file.labels) == sum(group.rows for group in row_groups) == metadata.num_rows:
        raise Damaged("is damaged: its columns have different numbers of rows; download it again")
    return file


def _image_column(schema: pa.Schema) -> tuple[str, str, str]:
    """Returns the image column's name, and the parquet paths of the bytes and of the file names, "" where absent."""
    structs = [f.name for f in schema if pa.types.is_struct(f.type) and _is_bytes(_field_type(f.type, "bytes"))]
    plain = [f.name for f in schema if _is_bytes(f.type)]
    for found in (structs, plain):
        named = [name for name in IMAGES if name in found] or (found if found is structs and len(found) == 1 else [])
        if named and found is structs:
            path = _field_type(schema.field(named[0]).type, "path")
            is_text = path is not None and (pa.types.is_string(path) or pa.types.is_large_string(path))
            return named[0], f"{named[0]}.bytes", f"{named[0]}.path" if is_text else ""
        if named:
            return named[0], named[0], ""
    return "", "", ""


def _field_type(kind: pa.StructType, name: str) -> pa.DataType | None:
    index = kind.get_field_index(name)
    return kind.field(index).type if index >= 0 else None


def _is_bytes(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Returns the class names that the library ``datasets`` writes into the metadata for a ClassLabel, by label."""
    try:
        info: Any = json.loads((schema.metadata or {})[b"huggingface"])
        names = info["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return names if isinstance(names, list) and names and all(isinstance(name, str) for name in names) else None


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
