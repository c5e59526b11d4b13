"""Reads tables of image paths and labels: CSV, TSV, JSON and JSON lines, as people write them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from imgtool.pipelines.records import IMAGE_SUFFIXES
from imgtool.pipelines.sources.layout import SPLIT_NAMES, first, label_text
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
"""Names of columns in lower case with underscores; of several the first in this order counts. A column of splits has
the names of splits in it."""

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


def read_table(text: str, name: str, where: str) -> Table | None:
    """Parses a table; returns None if it has no column of paths or none of labels.

    ``where`` names the file in messages. Raises SourceError if it has these columns and cannot be read otherwise.
    """
    is_json = name.lower().endswith((".json", ".jsonl", ".ndjson"))
    objects = _objects(text, name) if is_json else _csv(text, where)
    if objects is None:
        return None
    columns, rows = objects
    by_name = {re.sub(r"[\s-]+", "_", column.strip().lower()): i for i, column in enumerate(columns)}
    path, label, split = (
        next((by_name[known] for known in names if known in by_name), None) for names in (PATHS, LABELS, SPLITS)
    )
    if path is None or label is None or len(columns) > MAX_COLUMNS:
        return None
    found = []
    for number, row in rows:
        if max(path, label) >= len(row):
            raise SourceError(
                f"{where}, line {number}: has {len(row)} fields, but the header has {len(columns)}; correct this line"
            )
        for i, what in ((label, "label"), (path, "path")):
            if isinstance(row[i], list | dict):
                raise SourceError(f"{where}, line {number}: {columns[i]} is not one {what}: a list or an object")
        in_split = row[split] if split is not None and split < len(row) else None
        name_of_split = "" if isinstance(in_split, list | dict) else str(in_split or "").strip().lower()
        found.append(Row(without_surrogates(str(row[path] or "").strip()), label_text(row[label]), name_of_split))
    if not any(row.split in SPLIT_NAMES for row in found):
        found = [row._replace(split="") for row in found]  # the column means something else
    return Table(found, columns)


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


def _objects(text: str, name: str) -> Rows | None:
    """Returns the rows of a list of objects, of an object per line, or of an object of labels by path."""
    try:
        if name.lower().endswith(".json"):
            content = json.loads(text)
        else:
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return None
    if isinstance(content, dict):
        is_map = content and all(
            isinstance(v, str | int) and os.path.splitext(k)[1].lower() in IMAGE_SUFFIXES for k, v in content.items()
        )
        content = [{"path": k, "label": v} for k, v in content.items()] if is_map else []
    if not isinstance(content, list) or not content or not all(isinstance(one, dict) for one in content):
        return None
    columns = list(dict.fromkeys(key for one in content for key in one))
    return columns, _by_column(content, columns)


def _by_column(objects: list[dict[str, Any]], columns: list[str]) -> Iterator[tuple[int, list[Any]]]:
    for number, one in enumerate(objects, 1):
        yield number, [one.get(column) for column in columns]
