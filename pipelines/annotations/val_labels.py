"""What is known of images that lie flat in a folder or an archive, from the file that states it beside them."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from imgtool.pipelines.annotations.devkit import GROUND_TRUTH
from imgtool.pipelines.records import Box
from imgtool.wordnet import orders
from imgtool.wordnet.errors import InputError, SourceError

SOLUTION = {"train": "LOC_train_solution.csv", "val": "LOC_val_solution.csv"}
GROUND_TRUTH_FILE = os.path.basename(GROUND_TRUTH)


class Label(NamedTuple):
    """What is known of an image besides where it lies."""

    wnid: str
    boxes: tuple[Box, ...] = ()


def numbered(wnids: Iterable[str]) -> dict[str, Label]:
    """The wnid of validation image n at position n - 1, by key."""
    return {f"ILSVRC2012_val_{n:08d}": Label(wnid) for n, wnid in enumerate(wnids, 1)}


def read_ground_truth(text: str, where: str) -> dict[str, Label]:
    """The development kit's ground truth: the published ILSVRC2012_ID of validation image n in line n."""
    published = orders.ilsvrc2012_wnids()
    try:
        truth = [int(line) for line in text.split()]
        return numbered(published[i] for i in orders.convert(truth, "ilsvrc2012_id", "sorted"))
    except (ValueError, InputError) as error:
        raise SourceError(f"{where}: {error}") from None


def read_solution(text: str, where: str) -> dict[str, Label]:
    """Kaggle's table: ImageId, and "wnid xmin ymin xmax ymax" once or more."""
    return dict(_rows(text, where))


def _rows(text: str, where: str) -> Iterator[tuple[str, Label]]:
    try:
        for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
            objects = re.findall(
                r"(\S+) (-?\d{1,9}) (-?\d{1,9}) (-?\d{1,9}) (-?\d{1,9})(?: |$)", row.get("PredictionString") or ""
            )
            if not row.get("ImageId") or not objects:
                raise SourceError(f"{where}, line {number}: expected ImageId,PredictionString with a wnid and a box")
            yield (
                row["ImageId"],
                Label(objects[0][0], tuple(Box(wnid, *map(int, corners)) for wnid, *corners in objects)),
            )
    except csv.Error as error:
        raise SourceError(f"{where}: {error}") from None
