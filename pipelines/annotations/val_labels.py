"""Labels of images that are not in class folders, read from the label file that comes with them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from imgtool.pipelines.annotations.devkit import GROUND_TRUTH
from imgtool.pipelines.records import Box, pixel
from imgtool.wordnet import orders
from imgtool.wordnet.errors import InputError, SourceError

SOLUTION_FILES = {"train": "LOC_train_solution.csv", "val": "LOC_val_solution.csv"}
GROUND_TRUTH_FILE = os.path.basename(GROUND_TRUTH)


class ImageLabel(NamedTuple):
    """The class of an image and the bounding boxes in it."""

    wnid: str
    boxes: tuple[Box, ...] = ()


def labels_in_order(wnids: Iterable[str]) -> dict[str, ImageLabel]:
    """Returns labels by image key, given a list with the wnid of validation image n at position n - 1."""
    return {f"ILSVRC2012_val_{n:08d}": ImageLabel(wnid) for n, wnid in enumerate(wnids, 1)}


def read_ground_truth(text: str, path: str) -> dict[str, ImageLabel]:
    """Parses the development kit's ground truth: line n has the published ILSVRC2012_ID of validation image n.

    ``path`` names the file in messages. Returns labels by image key. Raises SourceError for any other content.
    """
    published = orders.ilsvrc2012_wnids()
    try:
        truth = [int(line) for line in text.split()]
        return labels_in_order(published[i] for i in orders.convert(truth, "ilsvrc2012_id", "sorted"))
    except (ValueError, InputError) as error:
        raise SourceError(f"{path}: {error}; take the file from the development kit") from None


def read_solution(text: str, path: str) -> dict[str, ImageLabel]:
    """Parses Kaggle's table LOC_*_solution.csv: ImageId, and "wnid xmin ymin xmax ymax" once or more.

    ``path`` names the file in messages. Returns labels by image key; the first wnid is an image's class. Raises
    SourceError for any other content.
    """
    return dict(_rows(text, path))


def _rows(text: str, path: str) -> Iterator[tuple[str, ImageLabel]]:
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
        rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
        for row in rows:
            if not any((value or "").strip() for name, value in row.items() if name):
                continue
            key, boxes = (row.get("ImageId") or "").strip(), _boxes(row.get("PredictionString") or "")
            if not key or not boxes:
                raise SourceError(
                    f"{path}, line {rows.line_num}: expected ImageId,PredictionString with a wnid and a box; "
                    "download it again"
                )
            yield key, ImageLabel(boxes[0].wnid, boxes)
    except csv.Error as error:
        raise SourceError(f"{path}: is not a CSV table ({error}); download it again") from None


def _boxes(text: str) -> tuple[Box, ...]:
    """Parses "wnid xmin ymin xmax ymax" once or more; returns () for any other content."""
    fields = text.split()
    try:
        boxes = [Box(fields[i], *map(pixel, fields[i + 1 : i + 5])) for i in range(0, len(fields), 5)]
    except (ValueError, TypeError):  # TypeError: fewer than four corners
        return ()
    return tuple(boxes)
