"""Validation class by class: how many images each has, how many are right, and what it is taken for."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from imgtool.training.evaluation.evaluate import Evaluated
from imgtool.wordnet.errors import InputError


class ClassResult(NamedTuple):
    """Of one class. ``class_index`` is the model's; the last three columns are of the most frequent wrong first
    prediction (of several the lowest class index), empty and 0 where there is no mistake."""

    class_index: int
    wnid: str
    name: str
    images: int
    right_top1: int  # images
    right_top5: int
    top1: float | None  # fractions 0..1; None without images
    top5: float | None
    probability: float | None  # mean softmax of the true class
    confused_wnid: str
    confused_name: str
    confused_images: int


class PerClass:
    """Collects a validation image by image; :meth:`results` counts. What is kept stays on the device, 21 bytes an
    image, and nothing waits for it.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def __call__(self, batch: Evaluated) -> None:
        """Takes a batch in: an observer of `evaluate`."""
        _, logits, best, labels = batch
        probability = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
        self._parts.append((labels.clone(), best[:, 0].clone(), (best == labels[:, None]).any(dim=1), probability))

    def results(self, wnids: Sequence[str], names: Sequence[str], shown: Sequence[int]) -> list[ClassResult]:
        """A row for each of the ``shown`` class indices. ``wnids`` and ``names`` are all the model's."""
        count = len(wnids)
        columns = [torch.cat(parts).cpu() for parts in zip(*self._parts, strict=True)]
        labels, first, among5, probability = columns
        images = labels.bincount(minlength=count).tolist()
        right = labels[first == labels].bincount(minlength=count).tolist()
        right5 = labels[among5].bincount(minlength=count).tolist()
        sums = torch.zeros(count, dtype=torch.float64).index_add(0, labels, probability.double()).tolist()
        confused = _most_frequent(labels[first != labels], first[first != labels], count)
        rows = []
        for index in shown:
            n = images[index]
            wrong, times = confused.get(index, (-1, 0))
            rows.append(
                ClassResult(
                    index,
                    wnids[index],
                    names[index],
                    n,
                    right[index],
                    right5[index],
                    right[index] / n if n else None,
                    right5[index] / n if n else None,
                    sums[index] / n if n else None,
                    wnids[wrong] if times else "",
                    names[wrong] if times else "",
                    times,
                )
            )
        return rows


def _most_frequent(labels: Tensor, wrong: Tensor, count: int) -> dict[int, tuple[int, int]]:
    """Label → its most frequent wrong class and how often. Pairs are counted as they occur: C × C may be a lot."""
    pairs, times = (labels * count + wrong).unique(return_counts=True)
    found: dict[int, tuple[int, int]] = {}
    for pair, n in zip(pairs.tolist(), times.tolist(), strict=True):
        label, other = divmod(pair, count)
        if n > found.get(label, (-1, 0))[1]:
            found[label] = other, n
    return found


def write_csv(path: str | Path, rows: Sequence[ClassResult]) -> None:
    """A line a class under a line of column names; what does not apply is empty. Raises InputError where the file
    cannot be written."""
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(ClassResult._fields)
            writer.writerows(rows)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
