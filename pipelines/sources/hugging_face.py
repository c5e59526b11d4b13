"""Hugging Face's layout: parquet files a split, a row an image with its label. Read in place, an image at a time."""

from __future__ import annotations

import collections
import contextlib
import io
import itertools
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from imgtool.pipelines.archives import parquet
from imgtool.pipelines.archives.parquet_pages import Damaged
from imgtool.pipelines.archives.tree import Tree
from imgtool.pipelines.records import Locator, Record, key_of, sorted_wnids
from imgtool.pipelines.storage.folders import RandomFile, join, open_folder
from imgtool.wordnet import orders
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

SPLITS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}
IMAGES, LABELS = ("image", "img", "jpg"), ("label", "labels", "fine_label", "cls")
UNLABELLED = -1
AT_ONCE = 8
"""Row groups indexed at once, so that their reads overlap."""
STEP, STEP_REMOTE = 1 << 10, 4 << 20
"""Bytes read at a time while indexing: from a disk what lies between is passed over, from afar requests cost more."""
_SPLIT = re.compile(rf"(?:^|/)({'|'.join(SPLITS)})(?:[-_.][^/]*)?(?:/[^/]+)?\.parquet$")
_OF = re.compile(r"-(\d{5})-of-(\d{5})")
_STATED = re.compile(r"(.+)_(n\d{8})|(n\d{8})_\d+")


class _File(NamedTuple):
    """What is read of a file at once: where its images are, and a row's label (-1: none) and path."""

    name: str
    columns: list[parquet.Column]
    labels: npt.NDArray[np.int64]
    paths: pa.ChunkedArray | None
    class_names: list[str] | None


class HuggingFace:
    """Files like ``train-00000-of-00294.parquet``, ``data/validation-….parquet`` or ``test/0000.parquet``.

    The image is a struct of bytes and path, or a binary column named image, img or jpg; the label an integer column
    named label, labels, fine_label or cls, negative or null where there is none. The class of a row is, in this order:

    - the wnid that its path states, behind the name (``n01440764_10026_n01440764.JPEG``, which is cut from the key) or
      before its number (``n01440764_10026.JPEG``). It has to agree with the label wherever that has a wnid;
    - the label's name among the class names in the file, if those are wnids;
    - the label as an index of the 1000 ILSVRC2012 wnids **in sorted order**, if the names are that data set's, or if
      there are no names and the highest label is 999;
    - the wnid that other rows' paths state for this label; else the label's name; else its number (``007``).

    A file that was cut off, or is missing among those that ``-of-00294`` counts, makes the split a truncated one.
    """

    layout: ClassVar[str] = "hugging-face"

    @classmethod
    def recognise(cls, tree: Tree) -> bool:
        return bool(_files_of(tree)) and "dataset.json" not in tree.files

    @classmethod
    def of_tree(cls, tree: Tree) -> HuggingFace:
        return cls(tree.root, _files_of(tree), complete=True)

    def __init__(self, root: str, names: list[str], *, complete: bool = False) -> None:
        """``names`` are the files below ``root``; what has no split's name is of train. ``complete``: they are all that
        there are, so that one that is missing is missing."""
        self.root = root
        self._folder = open_folder(root)
        self.ilsvrc2012_ids: dict[str, int] = {}
        self._truncated: dict[str, list[str]] = collections.defaultdict(list)
        by_split = _by_split(root, sorted(names))
        if complete:
            for split, those in by_split.items():
                self._truncated[split] += _missing(root, split, those)
        self.splits = tuple(by_split)
        self._files: dict[str, list[_File]] = {}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for split, those in by_split.items():
                read = pool.map(self._read, those, itertools.repeat(split))
                self._files[split] = [file for file in read if file]
        self._class_of, self.wnids = self._classes()

    def records(self, split: str) -> Iterator[Record]:
        known = set(self.wnids)
        for file in self._files[split]:
            paths = file.paths.to_pylist() if file.paths is not None else itertools.repeat(None)
            places = self._places(file)
            for row, (label, path, place) in enumerate(zip(file.labels.tolist(), paths, places, strict=False)):
                key, stated = _stated(path)
                wnid = self._class_of.get(label, "") if label >= 0 else stated
                says = f"its path says {stated}" if stated else f"there are {len(self._class_of)} classes"
                if (wnid or label >= 0) and (wnid not in known or (stated and stated != wnid)):
                    where = f"{self._where(file.name)}: row {row}"
                    raise SourceError(f"{where}: its label is {label} ({wnid or 'no class'}), but {says}")
                locator = Locator(file.name, f"row {row}", *place)
                yield Record(key or f"{key_of(file.name)}_{row:06d}", (wnid,) if wnid else (), locator)
        if self._truncated[split]:
            raise TruncatedSourceError("; ".join(self._truncated[split]))

    def _where(self, name: str) -> str:
        return join(self.root, name)

    def _places(self, file: _File) -> Iterator[parquet.Place]:
        step = STEP_REMOTE if self._folder.remote else STEP

        def index(opened: RandomFile, column: parquet.Column) -> list[parquet.Place]:
            return list(parquet.places(opened, column, step))

        with contextlib.closing(self._folder.open(file.name)) as opened, ThreadPoolExecutor(AT_ONCE) as pool:
            under_way: collections.deque[Future[list[parquet.Place]]] = collections.deque()
            try:
                for column in itertools.chain(file.columns, [None] * AT_ONCE):
                    if column:
                        under_way.append(pool.submit(index, opened, column))
                    if under_way and (len(under_way) == AT_ONCE or not column):
                        yield from under_way.popleft().result()
            except Damaged as error:
                raise SourceError(f"{self._where(file.name)}: {error}") from None
            finally:
                for future in under_way:
                    future.cancel()

    def _read(self, name: str, split: str) -> _File | None:
        where = self._where(name)
        with contextlib.closing(self._folder.open(name)) as file:
            head, tail = file.read(0, 40), file.read(max(file.size - 4, 0), 4)
            if head.startswith(b"version https://git-lfs"):
                raise SourceError(f"{where}: is a pointer of Git LFS; bring the files themselves with: git lfs pull")
            if head[:4] == b"PAR1" != tail:
                self._truncated[split].append(f"{where} is truncated: it ends at byte {file.size} without a footer")
                return None
            try:
                with pq.ParquetFile(pa.PythonFile(_Stream(file), mode="r")) as opened:
                    return _file_of(opened, name, file.size)
            except (Damaged, pa.ArrowException, OSError, ValueError, KeyError) as error:
                raise SourceError(f"{where}: {' '.join(str(error).split())}") from None

    def _classes(self) -> tuple[dict[int, str], list[str]]:
        """The class of each label, and all classes in sorted order."""
        files = [file for those in self._files.values() for file in those]
        named = [file for file in files if file.class_names is not None]
        if any(file.class_names != named[0].class_names for file in named):
            raise SourceError(f"{self.root}: its files state different class names")
        names = named[0].class_names if named else None
        highest = max((int(file.labels.max(initial=UNLABELLED)) for file in files), default=UNLABELLED)
        if names and all(re.fullmatch(r"n\d{8}", name) for name in names):
            table = names
        elif _is_ilsvrc2012(names) if names else highest == 999:
            table = orders.ilsvrc2012_wnids()
        else:
            stated = self._stated_classes(files)
            if stated:
                return stated, sorted_wnids(stated.values())
            table = names or [f"{label:0{max(3, len(str(highest)))}d}" for label in range(min(highest + 1, 1 << 20))]
        if len(set(table)) < len(table):
            twice = next(name for name, count in collections.Counter(table).items() if count > 1)
            raise SourceError(f"{self.root}: two of its classes are named {twice!r}")
        return dict(enumerate(table)), sorted_wnids(table)

    def _stated_classes(self, files: list[_File]) -> dict[int, str]:
        found: dict[int, str] = {}
        for file in files:
            if file.paths is not None:
                for label, path in zip(file.labels.tolist(), file.paths.to_pylist(), strict=True):
                    if label >= 0 and (wnid := _stated(path)[1]):
                        found.setdefault(label, wnid)
        return found


class _Stream(io.RawIOBase):
    """A RandomFile as pyarrow reads one."""

    def __init__(self, file: RandomFile) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._file.size)[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(self._file.size - self._at, 0)
        data = self._file.read(self._at, left if size < 0 else min(size, left))
        self._at += len(data)
        return data


def _files_of(tree: Tree) -> list[str]:
    """The parquet files of a folder that are named for a split; a clone's own folder .git is full of others."""
    names = (locator.file for locator in tree.files.values() if not locator.member)
    return [name for name in names if _SPLIT.search(name) and not re.search(r"(^|/)\.", name)]


def _missing(root: str, split: str, names: list[str]) -> list[str]:
    """What to say of files that others' names count and that are not there."""
    counted = {(int(match[2]), int(match[1])) for name in names if (match := _OF.search(name))}
    totals = {total for total, _ in counted}
    if len(totals) != 1 or len(counted) == max(totals):
        return []
    return [f"{root}: {max(totals) - len(counted)} of {max(totals)} {split} files are missing"]


def _by_split(root: str, names: list[str]) -> dict[str, list[str]]:
    """The files of each split, in the order train, val, test."""
    found: dict[str, list[str]] = {split: [] for split in SPLITS.values()}
    for name in names:
        match = _SPLIT.search(name)
        found[SPLITS[match[1]] if match else "train"].append(name)
    for split, those in found.items():
        folders = sorted({os.path.dirname(name) for name in those})
        if len(folders) > 1:
            raise SourceError(f"{root}: has several sets of {split} files, in {', '.join(folders)}: give one of those")
    return {split: those for split, those in found.items() if those}


def _file_of(opened: pq.ParquetFile, name: str, size: int) -> _File:
    metadata, schema = opened.metadata, opened.schema_arrow
    if metadata.num_rows > size:
        raise Damaged("its footer states more rows than bytes")
    image, bytes_path, name_path = _image_column(schema)
    label = next((column for column in LABELS if column in schema.names), None)
    if not image or label is None or not pa.types.is_integer(schema.field(label).type):
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        wanted = f"{'/'.join(IMAGES)}, {'/'.join(LABELS)}"
        raise Damaged(f"has no column of images or none of labels ({wanted}); its columns are {columns}")
    leaves = [opened.schema.column(i) for i in range(metadata.num_columns)]
    index = next((i for i, leaf in enumerate(leaves) if leaf.path == bytes_path), -1)
    if index < 0 or leaves[index].max_repetition_level or leaves[index].physical_type != "BYTE_ARRAY":
        raise Damaged(f"column {bytes_path} is not one of plain bytes")
    max_level, groups = leaves[index].max_definition_level, range(metadata.num_row_groups)
    columns_of = [parquet.column_of(metadata, group, index, max_level, size) for group in groups]
    batches = list(opened.iter_batches(1 << 16, columns=[label, name_path] if name_path else [label]))
    labels = [np.asarray(batch[label].cast(pa.int64()).fill_null(UNLABELLED)) for batch in batches]
    paths = None
    if name_path:
        paths = pa.chunked_array(
            [batch[image].field("path").cast(pa.large_string()) for batch in batches], pa.large_string()
        )
        paths.validate(full=True)  # all of them are UTF-8
    file = _File(
        name, columns_of, np.concatenate(labels or [np.zeros(0, np.int64)]), paths, _class_names(schema, label)
    )
    if not len(file.labels) == sum(column.rows for column in columns_of) == metadata.num_rows:
        raise Damaged("its columns have different numbers of rows")
    return file


def _image_column(schema: pa.Schema) -> tuple[str, str, str]:
    """Name of the column of images, and the parquet paths of their bytes and of their file names, "" where absent."""
    structs = [f.name for f in schema if pa.types.is_struct(f.type) and _is_bytes(_member(f.type, "bytes"))]
    plain = [f.name for f in schema if _is_bytes(f.type)]
    for found in (structs, plain):
        named = [name for name in IMAGES if name in found] or (found if found is structs and len(found) == 1 else [])
        if named and found is structs:
            path = _member(schema.field(named[0]).type, "path")
            is_text = path is not None and (pa.types.is_string(path) or pa.types.is_large_string(path))
            return named[0], f"{named[0]}.bytes", f"{named[0]}.path" if is_text else ""
        if named:
            return named[0], named[0], ""
    return "", "", ""


def _member(kind: pa.StructType, name: str) -> pa.DataType | None:
    index = kind.get_field_index(name)
    return kind.field(index).type if index >= 0 else None


def _is_bytes(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """The names that the library ``datasets`` writes beside a ClassLabel, by label."""
    try:
        info: Any = json.loads((schema.metadata or {})[b"huggingface"])
        names = info["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return names if isinstance(names, list) and names and all(isinstance(name, str) for name in names) else None


def _is_ilsvrc2012(names: list[str]) -> bool:
    # their words differ from one upload to the next ("tench, Tinca tinca"), their order does not
    return len(names) == 1000 and names[0].startswith("tench") and names[-1].startswith("toilet tissue")


def _stated(path: str | None) -> tuple[str, str]:
    """Key and wnid by an image's file name, "" where it does not state them."""
    stem = key_of(path) if path else ""
    match = _STATED.fullmatch(stem)
    if not match:
        return stem, ""
    return (match[1], match[2]) if match[2] else (stem, match[3])
