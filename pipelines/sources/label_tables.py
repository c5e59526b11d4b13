"""Reads tables of image paths and labels: CSV, TSV, JSON and JSON lines, as people write them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from imgtool.pipelines.records import IMAGE_SUFFIXES, SPLIT_NAMES
from imgtool.pipelines.sources.layout import first, label_text
from imgtool.pipelines.storage.text import without_surrogates
from imgtool.wordnet.errors import SourceError

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
PATHS = (
    *("path", "file_name", "filename", "file", "filepath", "file_path", "filepaths", "image_path", "image", "img_path"),
    *("img", "image_name", "img_name", "image_file", "image_filename", "image_id", "id"),
)
LABELS = (
    *("label", "labels", "class", "class_name", "classname", "label_name", "category", "category_name", "target"),
    *("wnid", "synset", "cls", "y", "class_id", "label_id", "category_id", "class_index", "class_idx"),
)
SPLITS = ("split", "subset", "set", "partition", "data_set", "dataset")
UNREAD = ("split", "is_valid", "is_val", "is_test", "is_train", "valid")
"""Names of columns in lower case with underscores; of several the first in this order counts. A column of splits has
the names of splits in it; a column of UNREAD without them is noted."""

MAX_COLUMNS = 1 << 12
"""A table with more columns is no list of labels."""


class Row(NamedTuple):
    """One row: the image's path, its label and split as stated, "" where not."""

    path: str
    label: str
    split: str


class Table(NamedTuple):
    """The rows of a table, and the names of its columns."""

    rows: list[Row]
    columns: list[str]
    unread: str = ""
    """A line about a column of splits whose values are not known."""


def read_table(text: str, name: str, where: str) -> Table | None:
    """Parses a table; returns None if it has no column of paths or none of labels.

    ``where`` names the file in messages. Raises SourceError if it has these columns and cannot be read otherwise.
    """
    is_json = name.lower().endswith((".json", ".jsonl", ".ndjson"))
    objects = _objects(text, name, where) if is_json else _csv(text, where)
    if objects is None:
        return None
    columns, rows = objects
    path, label, split, unread = (_column(columns, names) for names in (PATHS, LABELS, SPLITS, UNREAD))
    if path is None or label is None or len(columns) > MAX_COLUMNS:
        return None
    found = []
    values: set[str] = set()
    for number, row in rows:
        if max(path, label) >= len(row):
            raise SourceError(
                f"{where}, line {number}: has {len(row)} fields, but the header has {len(columns)}; correct this line"
            )
        if any(str(cell).strip() for cell in row[len(columns) :]):
            raise SourceError(
                f"{where}, line {number}: has {len(row)} fields, but the header has {len(columns)}; quote a field with "
                "a comma"
            )
        for i, what in ((label, "label"), (path, "path")):
            if isinstance(row[i], list | dict):
                raise SourceError(f"{where}, line {number}: {columns[i]} is not one {what}: {str(row[i])[:60]}")
        in_split = row[split] if split is not None and split < len(row) else None
        in_split = None if isinstance(in_split, list | dict) else in_split
        values.add("" if unread is None or unread >= len(row) else str(row[unread]))
        found.append(Row(without_surrogates(_text(row[path])), label_text(row[label]), _text(in_split).lower()))
    if any(row.split in SPLIT_NAMES for row in found):
        return Table(found, columns)
    found = [row._replace(split="") for row in found]  # the column means something else
    if unread is None or len(values) < 2:
        return Table(found, columns)
    return Table(
        found,
        columns,
        f"the column {columns[unread]} of {name} is not read ({first(sorted(values))}): a column split says train, val "
        "or test",
    )


def _column(columns: list[str], names: tuple[str, ...]) -> int | None:
    """Returns the place of the first of these names among the columns; of two equal columns, that of the first one."""
    known = [re.sub(r"[\s-]+", "_", column.strip().lower()) for column in columns]
    return next((known.index(name) for name in names if name in known), None)


def _text(value: object) -> str:
    return "" if value is None or value != value else str(value).strip()


Rows = tuple[list[str], Iterable[tuple[int, list[Any]]]]
"""The columns' names, and each row with its line number."""


def _csv(text: str, where: str) -> Rows | None:
    line = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max("\t;,", key=line.count)
    try:
        rows = [(i, row) for i, row in enumerate(csv.reader(io.StringIO(text), delimiter=delimiter), 1) if any(row)]
    except csv.Error as error:
        raise SourceError(f"{where}: is not a CSV table ({error}); quote fields with a comma or line break") from None
    if not rows:
        return None
    header = rows[0][1]
    images = [i for i, cell in enumerate(header) if cell.strip().lower().endswith(IMAGE_SUFFIXES)]
    if len(images) == 1 and len(header) == 2:  # the first line is an image already
        return ["path" if i in images else "label" for i in range(2)], rows
    if images:
        raise SourceError(f"{where}: has no line of column names ({first(header, 6)}); add path,label or the like")
    return header, rows[1:]


def _objects(text: str, name: str, where: str) -> Rows | None:
    """Returns the rows of a list of objects, of an object per line, or of an object of labels by path."""
    if not name.lower().endswith(".json"):
        return _lines(text, where)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(content, dict):
        is_map = content and all(
            isinstance(v, str | int) and os.path.splitext(k)[1].lower() in IMAGE_SUFFIXES for k, v in content.items()
        )
        content = [{"path": k, "label": v} for k, v in content.items()] if is_map else []
    if not isinstance(content, list) or not content or not all(isinstance(one, dict) for one in content):
        return None
    return _by_column(list(enumerate(content, 1)))


def _lines(text: str, where: str) -> Rows | None:
    """Returns the rows of an object per line. Raises SourceError if some lines, but not all, are such objects."""
    objects, bad = [], ""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            one = json.loads(line)
            problem = "" if isinstance(one, dict) else "is not an object"
        except (ValueError, RecursionError) as error:
            problem = f"is not JSON ({error})"
        if not problem:
            objects.append((number, one))
        bad = bad or (problem and f"{where}, line {number}: {problem}; correct this line")
    if not objects:
        return None
    columns, rows = _by_column(objects)
    if bad and _column(columns, PATHS) is not None and _column(columns, LABELS) is not None:
        raise SourceError(bad)
    return None if bad else (columns, rows)


def _by_column(objects: list[tuple[int, dict[str, Any]]]) -> Rows:
    columns = list(dict.fromkeys(key for _, one in objects for key in one))
    return columns, ((number, [one.get(column) for column in columns]) for number, one in objects)
