"""What the layouts have in common: the names of splits, the images among a tree's files, the classes of labels."""

from __future__ import annotations

import collections
import functools
import os
import re
from collections.abc import Collection, Iterable, Sequence

from imgtool.pipelines.archives.file_tree import FileTree
from imgtool.pipelines.records import SPLIT_NAMES, sorted_wnids
from imgtool.pipelines.storage.text import without_surrogates
from imgtool.wordnet import orders

SPLITS = ("train", "val", "test")
MAX_CLASSES = 1 << 20
SPARSE = 10
"""Numbers of which more than 9 of 10 up to the highest are absent are ids of classes, not indices."""
MAX_TABLE = 1 << 30
"""The largest table that is read, in bytes."""
MAX_JSON = 1 << 27
"""The largest JSON file that is read: Python's objects take up to 25 times its bytes."""
_SPLIT_IN_NAME = re.compile(rf"(?:^|[^a-z])({'|'.join(SPLIT_NAMES)})(?:[^a-z]|$)")
_NUMBER = re.compile(r"([0-9]{1,18})(?:\.0+)?")
_NO_LABEL = re.compile(r"-[0-9]+(?:\.0+)?|nan|NaN|None|null|NULL|<NA>|")


def common_folder(tree: FileTree) -> str:
    """Returns the folder that holds everything and that the tree leaves out of its names, with a slash at its end."""
    name, locator = next(iter(tree.files.items()), ("", None))
    return (locator.member or locator.file).removesuffix(name) if locator else ""


def counted(names: Sequence[str], what: str) -> list[str]:
    """Returns a line, "WHAT: 4 (a, b, c, …)", as a list; an empty list without names."""
    return [f"{what}: {len(names):,} ({first(names)})"] if names else []


def first(names: Sequence[str], count: int = 3) -> str:
    """Lists the first few names."""
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")


def split_in_name(name: str) -> str | None:
    """Returns the split that a path names: in its last part that has a split's name as a word."""
    for part in reversed(name.lower().split("/")):
        if match := _SPLIT_IN_NAME.search(part):
            return SPLIT_NAMES[match[1]]
    return None


def label_text(value: object) -> str:
    """Returns a label as text, "" where there is none: empty, a negative number, or nan, None or null."""
    return "" if value is None or value != value else _clean(str(value))


@functools.lru_cache(1 << 16)
def _clean(text: str) -> str:
    text = without_surrogates(" ".join(text.split()))
    return "" if _NO_LABEL.fullmatch(text) else text


def classes_of_numbers(numbers: Collection[int]) -> tuple[dict[int, str], list[str]]:
    """Returns the class of each number that labels may be, and all classes in sorted order.

    Numbers are class indices from 0 to the highest, with 999 as the highest into the 1000 wnids in sorted order. Where
    so few up to the highest occur that they are ids, each is the name of a class.
    """
    distinct, highest = set(numbers), max(numbers, default=-1)
    if highest >= MAX_CLASSES or highest > max(1000, SPARSE * len(distinct)):
        names = {number: str(number) for number in distinct}
        return names, sorted_wnids(names.values())
    digits = max(3, len(str(highest)))
    table = orders.ilsvrc2012_wnids() if highest == 999 else [f"{label:0{digits}d}" for label in range(highest + 1)]
    return dict(enumerate(table)), sorted_wnids(table)


def classes_of(labels: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Returns the class of each label that is not empty, and all classes in sorted order.

    Labels that are all whole numbers are read by `classes_of_numbers`; others are the classes' names.
    """
    distinct = {label for label in labels if label}
    numbers = {label: int(match[1]) for label in distinct if (match := _NUMBER.fullmatch(label))}
    if distinct and len(numbers) == len(distinct):
        of_number, wnids = classes_of_numbers(numbers.values())
        return {label: of_number[number] for label, number in numbers.items()}, wnids
    return {label: label for label in distinct}, sorted_wnids(distinct)


def seen(tree: FileTree) -> str:
    """Describes the files of a tree whose layout is unknown, in a line."""
    images = tree.images()
    is_image = set(images)
    others = [name for name in tree.files if name not in is_image]
    folders = sorted({name.rpartition("/")[0] for name in images})
    parts = []
    if images:
        where = f" in {first([folder or '.' for folder in folders])}" if any(folders) else ""
        parts.append(f"{len(images):,} images{where}")
    if len(others) > 3:
        endings = collections.Counter(os.path.splitext(name)[1] or "without ending" for name in others)
        parts.append(", ".join(f"{count:,} {ending}" for ending, count in endings.most_common(4)))
    elif others:
        parts.append(", ".join(map(functools.partial(_with_columns, tree), others)))
    return " and ".join(parts) or "no files"


def _with_columns(tree: FileTree, name: str) -> str:
    """Returns the name of a file, of a CSV table with the names of its columns."""
    if not name.lower().endswith((".csv", ".tsv")) or tree.files[name].size > MAX_TABLE:
        return name
    header = next(iter(tree.read_text(name).splitlines()), "")
    return f"{name} ({header[:100]})" if header.isprintable() else name
