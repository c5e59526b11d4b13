"""The confusion matrix: counts, the most confused pairs, and its plot with classes in the order of the hierarchy."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imgtool.pipelines.storage.atomic import atomic_write
from imgtool.training.evaluation.plots.order import SuperclassRange, class_order

MAX_NAMED = 40  # classes; with more, superclasses are labelled instead of classes
MAX_NUMBERED = 20  # classes; with more, cells have no counts
SIDE = 1000  # of the matrix, in pixels
MAX_CELLS = 500  # per side; with more classes, one cell covers several
LARGEST_CELL, SMALLEST_SIDE = 56, 240  # pixels
LARGEST_MATRIX = 4096  # classes; with more, confusion.npz would take gigabytes and is not written
MAX_PAIRS = 1000  # rows of confusion.csv
DPI = 100
LINE_HEIGHT = 13  # of a label, in pixels
MAX_LABEL = 26  # characters
INK, SOFT = "#1c2024", "#667079"


@dataclass(frozen=True)
class ConfusionMatrix:
    """True and predicted classes of the images of a split."""

    true: npt.NDArray[np.int64]  # int64 [images]: class indices
    predicted: npt.NDArray[np.int64]  # int64 [images]: class indices
    wnids: Sequence[str]  # by class index
    names: Sequence[str]

    def matrix(self) -> npt.NDArray[np.int64]:
        """Returns int64 [C, C]: the number of images of the row's class that were predicted as the column's."""
        classes = len(self.names)
        return np.bincount(self.true * classes + self.predicted, minlength=classes**2).reshape(classes, classes)

    def pairs(self) -> list[tuple[int, int, int]]:
        """Returns (true class, predicted class, images) of the confused pairs, most images first."""
        wrong = self.true != self.predicted
        keys, counts = np.unique(self.true[wrong] * len(self.names) + self.predicted[wrong], return_counts=True)
        best = np.argsort(-counts, kind="stable")
        true, predicted = np.divmod(keys[best], len(self.names))
        return list(zip(true.tolist(), predicted.tolist(), counts[best].tolist(), strict=True))

    def save(self, folder: Path) -> list[Path]:
        """Writes confusion.csv, confusion.npz and confusion_matrix.png, and returns their paths.

        confusion.npz has ``matrix``, ``order`` (the class indices as plotted) and ``wnids``. Raises OSError when a file
        cannot be written.
        """
        order, blocks = class_order(self.wnids, self.names)
        written = [folder / "confusion.csv"]
        totals = np.bincount(self.true, minlength=len(self.names))
        with atomic_write(written[0]) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["true_wnid", "true_name", "predicted_wnid", "predicted_name", "images", "of_true"])
            for true, predicted, images in self.pairs()[:MAX_PAIRS]:
                columns = [text for i in (true, predicted) for text in (self.wnids[i], self.names[i])]
                table.writerow([*columns, images, totals[true]])
        if len(self.names) <= LARGEST_MATRIX:
            written.append(folder / "confusion.npz")
            with atomic_write(written[-1]) as temporary, open(temporary, "wb") as binary:
                np.savez_compressed(binary, matrix=self.matrix(), order=order, wnids=np.array(self.wnids))
        written.append(folder / "confusion_matrix.png")
        with atomic_write(written[-1]) as temporary:
            draw_confusion(self, order, blocks, temporary)
        return written


def draw_confusion(
    confusion: ConfusionMatrix, order: npt.NDArray[np.int64], blocks: Sequence[SuperclassRange], path: Path
) -> None:
    """Writes the matrix as a PNG, with classes in ``order`` and the superclasses ``blocks`` framed.

    The colour of a cell is the share of the row's (true) class that was predicted as the column's, on a logarithmic
    scale. With more than `MAX_CELLS` classes, one cell covers several.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    classes = len(order)
    cells = min(classes, MAX_CELLS)
    shares, counts = _shares(confusion, order, cells)
    # a whole number of pixels per cell, so that all rows have the same height
    side = min(SIDE // cells, max(LARGEST_CELL, SMALLEST_SIDE // cells)) * cells
    label_classes = classes <= MAX_NAMED
    names = [confusion.names[i] for i in order]
    labels = [SuperclassRange(name, i, i + 1) for i, name in enumerate(names)] if label_classes else blocks
    left = 30 + 7 * max([len(_short(label.name)) for label in labels], default=0)
    right = 30 + (7 * max([len(_short(block.name)) for block in blocks], default=0) if label_classes else 0)
    width, height, top = max(left + side + right + 100, 640), 70 + side + left, 70
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
    floor = min(float(shares[shares > 0].min(initial=1.0)), 0.1)
    norm = LogNorm(floor, 1.0)
    masked = np.ma.masked_equal(shares, 0)  # empty cells stay white
    image = axes.imshow(masked, cmap="magma_r", norm=norm, interpolation="nearest", extent=(0, classes, classes, 0))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_edgecolor(SOFT)
    for block in blocks:
        size = block.stop - block.start
        axes.add_patch(_frame(block.start, size))
    _label_rows(axes, labels, classes, side, -1)
    _label_columns(axes, labels, classes, side)
    if label_classes:
        _label_rows(axes, blocks, classes, side, 1)
    if classes <= MAX_NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if norm(shares[row, column]) > 0.5 else INK
            axes.text(column + 0.5, row + 0.5, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    bar_side = min(side, 320)
    bar = figure.add_axes(((left + side + right) / width, 1 - (top + bar_side) / height, 14 / width, bar_side / height))
    bar.tick_params(labelsize=8)
    figure.colorbar(image, cax=bar, format=lambda value, _: f"{value:.1%}" if value < 0.01 else f"{value:.0%}")
    top1 = (confusion.true == confusion.predicted).mean()
    figure.text(14 / width, 1 - 26 / height, "Confusion matrix", fontsize=14, weight="bold", color=INK, va="center")
    legend = f"rows: true class, columns: predicted class, colour: share of the row (log scale); top-1 {top1:.1%}"
    figure.text(14 / width, 1 - 50 / height, legend, fontsize=9, color=SOFT, va="center")
    canvas.print_png(path)


def _shares(
    confusion: ConfusionMatrix, order: npt.NDArray[np.int64], cells: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Returns float64 [cells, cells], the shares of each row, and int64 [cells, cells], the counts."""
    cell = np.empty(len(order), np.int64)
    cell[order] = np.arange(len(order)) * cells // len(order)
    flat = cell[confusion.true] * cells + cell[confusion.predicted]
    counts = np.bincount(flat, minlength=cells**2).reshape(cells, cells)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), counts


def _frame(start: int, size: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((start, start), size, size, fill=False, edgecolor="#3b7dd8", lw=1.0)


def _short(name: str) -> str:
    return name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1].rstrip() + "…"


def _label_rows(axes: Any, labels: Sequence[SuperclassRange], classes: int, side: int, direction: int) -> None:
    """Writes labels left (``direction`` -1) or right (1) of the matrix, each with a line to its rows."""
    pixel = classes / side
    edge = 0 if direction < 0 else classes
    for label, position in zip(labels, spread([_middle(x) for x in labels], LINE_HEIGHT * pixel, classes), strict=True):
        x = [edge, edge + direction * 5 * pixel, edge + direction * 15 * pixel]
        axes.plot(x, [_middle(label), _middle(label), position], color=SOFT, lw=0.7, clip_on=False)
        alignment = "right" if direction < 0 else "left"
        axes.text(
            edge + direction * 18 * pixel,
            position,
            _short(label.name),
            ha=alignment,
            va="center",
            fontsize=8,
            color=INK,
        )
    axes.set(xlim=(0, classes), ylim=(classes, 0))


def _label_columns(axes: Any, labels: Sequence[SuperclassRange], classes: int, side: int) -> None:
    """Writes labels below the matrix, rotated, each with a line to its columns."""
    pixel = classes / side
    for label, position in zip(labels, spread([_middle(x) for x in labels], LINE_HEIGHT * pixel, classes), strict=True):
        y = [classes, classes + 5 * pixel, classes + 15 * pixel]
        axes.plot([_middle(label), _middle(label), position], y, color=SOFT, lw=0.7, clip_on=False)
        axes.text(
            position,
            classes + 18 * pixel,
            _short(label.name),
            ha="center",
            va="top",
            rotation=90,
            fontsize=8,
            color=INK,
        )
    axes.set(xlim=(0, classes), ylim=(classes, 0))


def _middle(block: SuperclassRange) -> float:
    return (block.start + block.stop) / 2


def spread(preferred: Sequence[float], gap: float, length: float) -> list[float]:
    """Moves the ascending ``preferred`` positions to be at least ``gap`` apart and, if they fit, in 0..``length``."""
    positions = list(preferred)
    for i in range(1, len(positions)):
        positions[i] = max(positions[i], positions[i - 1] + gap)
    limit = length - gap / 2
    for i in reversed(range(len(positions))):
        positions[i] = min(positions[i], limit)
        limit = positions[i] - gap
    return positions
