"""Validation per class: number of images, accuracy, and the class that it is most often confused with."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from imgtool.training.evaluation.evaluate import EvaluatedBatch
from imgtool.wordnet.errors import InputError


class ClassResult(NamedTuple):
    """The results of one class: one row of the CSV file."""

    class_index: int  # of the model
    wnid: str
    name: str
    images: int
    right_top1: int  # correctly classified images
    right_top5: int
    top1: float | None  # fractions 0..1; None without images
    top5: float | None
    probability: float | None  # mean softmax of the true class
    confused_wnid: str  # most frequent wrong top-1 class (of several the lowest class index); empty if none
    confused_name: str
    confused_images: int  # images with this wrong top-1 class


class PerClass:
    """Collects predictions as an observer of `evaluate`; :meth:`results` counts them per class.

    It keeps 21 bytes per image on the device. A call does not wait for the device.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def __call__(self, batch: EvaluatedBatch) -> None:
        """Adds a batch."""
        _, logits, best, labels = batch
        probability = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
        self._parts.append((labels.clone(), best[:, 0].clone(), (best == labels[:, None]).any(dim=1), probability))

    def results(self, wnids: Sequence[str], names: Sequence[str], class_indices: Sequence[int]) -> list[ClassResult]:
        """Returns one row per given class index. ``wnids`` and ``names`` are those of all of the model's classes."""
        count = len(wnids)
        columns = [torch.cat(parts).cpu() for parts in zip(*self._parts, strict=True)]
        labels, predicted, in_top5, probability = columns
        images = labels.bincount(minlength=count).tolist()
        correct = labels[predicted == labels].bincount(minlength=count).tolist()
        correct5 = labels[in_top5].bincount(minlength=count).tolist()
        sums = torch.zeros(count, dtype=torch.float64).index_add(0, labels, probability.double()).tolist()
        wrong = predicted != labels
        confused = _most_frequent(labels[wrong], predicted[wrong], count)
        rows = []
        for index in class_indices:
            n = images[index]
            other, times = confused.get(index, (-1, 0))
            rows.append(
                ClassResult(
                    index,
                    wnids[index],
                    names[index],
                    n,
                    correct[index],
                    correct5[index],
                    correct[index] / n if n else None,
                    correct5[index] / n if n else None,
                    sums[index] / n if n else None,
                    wnids[other] if times else "",
                    names[other] if times else "",
                    times,
                )
            )
        return rows


def _most_frequent(labels: Tensor, predicted: Tensor, count: int) -> dict[int, tuple[int, int]]:
    """Returns label → (most frequent predicted class, number of images).

    Only pairs that occur are counted, because a matrix of all classes may be too large.
    """
    pairs, times = (labels * count + predicted).unique(return_counts=True)
    found: dict[int, tuple[int, int]] = {}
    for pair, n in zip(pairs.tolist(), times.tolist(), strict=True):
        label, other = divmod(pair, count)
        if n > found.get(label, (-1, 0))[1]:
            found[label] = other, n
    return found


def write_csv(path: str | Path, rows: Sequence[ClassResult]) -> None:
    """Writes a header and one line per class; None becomes an empty cell. Raises InputError if it cannot be written."""
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(ClassResult._fields)
            writer.writerows(rows)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
