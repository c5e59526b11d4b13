"""Images that a table beside them lists with their labels: CSV, JSON lines or JSON; Hugging Face's metadata.csv."""

from __future__ import annotations

import functools
import os
import posixpath
from collections import Counter
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from imgtool.pipelines.archives.file_tree import FileTree
from imgtool.pipelines.records import SPLIT_NAMES, Locator, Record, key_of
from imgtool.pipelines.sources.label_tables import ENDINGS, Row, Table, read_table
from imgtool.pipelines.sources.layout import (
    MAX_JSON,
    MAX_TABLE,
    SPLITS,
    classes_of,
    counted,
    first,
    split_in_name,
)
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

SEVERAL = "several images have this name"
MAX_TABLES = 64
"""A folder with more tables has something else in them."""


class _Listed(NamedTuple):
    """A row of a table, and the image that it names: the name in the tree, "" if there is none."""

    row: Row
    name: str
    cause: str


class ListedImages:
    """A folder, tar or zip of images with a table of paths and labels (`label_tables` says which).

    A path is relative to the table's folder or to the top; a bare file name, with or without its ending, may be in any
    folder if it is there only once. The split is the one that the table's column split states, else the one that the
    image's path or the table's names, which must not differ, else train. `layout.classes_of` says what the labels'
    classes are. A row whose file is missing, or without a label outside of the test split, cannot be stored.
    """

    layout: ClassVar[str] = "table"

    @classmethod
    def tables(cls, tree: FileTree) -> dict[str, Table]:
        """Returns the tables of paths and labels by name; none if there are no images."""
        found = _tables(tree)
        return found if found and tree.images() else {}

    @classmethod
    def of_table(cls, tree: FileTree, name: str) -> ListedImages:
        """Opens the images that one table lists; ``name`` is its name in the tree."""
        if tables := _tables(tree, name):
            return cls(tree, tables)
        raise SourceError(f"{tree.path}: {name}: has no column of paths or none of labels; add a line path,label")

    def __init__(self, tree: FileTree, tables: dict[str, Table]) -> None:
        self._tree = tree
        self.root = tree.root
        self.ilsvrc2012_ids: dict[str, int] = {}
        self.notes: list[str] = []
        self.passed_over = tree.passed_over.without()  # the tree may turn out to be of another layout
        _check_one_per_split(tree, list(tables))
        self._images = tree.images()
        self._find = _Finder(self._images)
        rows: dict[str, list[_Listed]] = {split: [] for split in SPLITS}
        repeated = []
        for table_name, found in tables.items():
            seen = set()
            for row in found.rows:
                listed = self._find(row, posixpath.dirname(table_name))
                split = self._split(row, table_name, listed.name)
                if (split, listed.name or row.path, row.label) in seen:
                    repeated.append(row.path)
                    continue
                seen.add((split, listed.name or row.path, row.label))
                rows[split].append(listed)
        self._rows = {split: found for split, found in rows.items() if found}
        self.splits = tuple(self._rows)
        named = {listed.name for of_split in self._rows.values() for listed in of_split}
        if not named - {""}:
            path = next((listed.row.path for of_split in self._rows.values() for listed in of_split), "")
            raise SourceError(
                f"{tree.path}: none of the paths in {first(list(tables))} names an image here; the first is {path!r}"
            )
        self._class_of, self.wnids = classes_of(listed.row.label for of in self._rows.values() for listed in of)
        if not self.wnids:
            raise SourceError(f"{tree.path}: {first(list(tables))} states no label; fill the column of labels")
        self.notes.append(f"the labels are those in {first(list(tables))}")
        self.notes += [found.unread for found in tables.values() if found.unread]
        self.notes += counted(repeated, "repeated rows, passed over")
        others = [name for name in self._images if name not in named]
        for name in others:
            self.passed_over.add(f"image that is not in {first(list(tables))}", name)

    def repeats_folders(self) -> bool:
        """Whether the table lists few of the images, or states of each class folder one class that no other has.

        A label that is the name of another class folder says something else.
        """
        named = [listed for found in self._rows.values() for listed in found if listed.name]
        pairs = {(os.path.dirname(listed.name).rpartition("/")[2].lower(), listed.row.label) for listed in named}
        folders, labels = {folder for folder, _ in pairs}, {label for _, label in pairs}
        one_each = 1 < len(folders) == len(labels) == len(pairs)
        swapped = any(label.lower() in folders - {folder} for folder, label in pairs)
        return 2 * len(named) < len(self._images) or (one_each and not swapped)

    def _split(self, row: Row, table: str, image: str) -> str:
        if row.split:
            if row.split not in SPLIT_NAMES:
                raise SourceError(
                    f"{self._tree.path}: {table}: {row.path}: the split {row.split!r} is unknown; "
                    "name it train, val or test"
                )
            return SPLIT_NAMES[row.split]
        in_folders = (SPLIT_NAMES.get(part.lower()) for part in image.split("/")[:-1])
        of_table, of_image = split_in_name(table), next((split for split in in_folders if split), None)
        if of_table and of_image and of_table != of_image:
            raise SourceError(
                f"{self._tree.path}: {table} is named for the split {of_table}, but lists {image}, which is in "
                f"{of_image}; rename the table or add a column split"
            )
        return of_table or of_image or "train"

    def records(self, split: str) -> Iterator[Record]:
        for row, name, cause in self._rows[split]:
            locator = self._tree.files[name] if name else Locator(row.path, "", 0, 0).unreadable(cause)
            if not row.label and split != "test" and name:
                locator = locator.unreadable("the table states no label")
            wnids = (self._class_of[row.label],) if row.label else ()
            yield Record(key_of(name or row.path), wnids, locator)
        if self._tree.truncated:
            raise TruncatedSourceError(self._tree.truncated)


class _Finder:
    """Finds the image that a row names."""

    def __init__(self, images: list[str]) -> None:
        self._images = images
        self._known = set(images)
        self._by_end: dict[str, str] = {}

    def __call__(self, row: Row, folder: str) -> _Listed:
        """Looks for a path below ``folder``, then below the top, then, without folders, anywhere."""
        path = row.path
        if not path:
            return _Listed(row, "", "the table states no path")
        if not folder and path in self._known:
            return _Listed(row, path, "")
        path = path.replace("\\", "/")
        for name in map(posixpath.normpath, (posixpath.join(folder, path), path)):
            if (found := self._named(name)) is not None:
                return _Listed(row, found, "" if found else SEVERAL)
        if path.startswith("/") or path[1:3] == ":/":  # an absolute path of another machine: its longest known end
            parts = path.split("/")
            ends = ("/".join(parts[i:]) for i in range(1, len(parts)))
            if found := next((end for end in ends if end in self._known), ""):
                if self._by_end.setdefault(found, path) != path:
                    return _Listed(row, "", "another path of the table ends in the same image")
                return _Listed(row, found, "")
        found = self._by_file_name.get(path, "")
        several = path in self._by_file_name and not found
        return _Listed(row, found, SEVERAL if several else "no such image in the source")

    def _named(self, name: str) -> str | None:
        """Returns the image with this path, with or without its suffix; "" if there are several, None without one."""
        return name if name in self._known else self._without_suffix.get(name)

    @functools.cached_property
    def _without_suffix(self) -> dict[str, str]:
        """The image of each path without suffix; "" where several have this path."""
        found: dict[str, str] = {}
        for name in self._images:
            path = os.path.splitext(name)[0]
            found[path] = "" if path in found else name
        return found

    @functools.cached_property
    def _by_file_name(self) -> dict[str, str]:
        """The image of each file name, with and without its suffix; "" where several have this name."""
        found: dict[str, str] = {}
        for name in self._images:
            for base in {os.path.basename(name), key_of(name)}:
                found[base] = "" if base in found else name
        return found


def _tables(tree: FileTree, only: str | None = None) -> dict[str, Table]:
    """Returns the tables of paths and labels by name."""
    names = [only] if only else [name for name in tree.files if name.lower().endswith(ENDINGS)]
    if len(names) > MAX_TABLES:
        depth = min(name.count("/") for name in names)
        names = [name for name in names if name.count("/") == depth]
    found = {}
    for name in names if len(names) <= MAX_TABLES else ():
        most = MAX_TABLE if name.lower().endswith((".csv", ".tsv")) else MAX_JSON
        if tree.files[name].size > most or "submission" in name.lower():
            continue
        if table := read_table(tree.read_text(name), name, f"{tree.path}: {name}"):
            found[name] = table
    return {name: table for name, table in found.items() if table.rows}


def _check_one_per_split(tree: FileTree, names: list[str]) -> None:
    """Raises SourceError if two tables could be the labels of the same images."""
    places = Counter((split_in_name(name), posixpath.dirname(name)) for name in names)
    place = next((place for place, count in places.items() if count > 1), None)
    if place:
        twice = [name for name in names if (split_in_name(name), posixpath.dirname(name)) == place]
        raise SourceError(f"{tree.path}: has several tables of labels, {first(twice)}; give one of them as --src")
