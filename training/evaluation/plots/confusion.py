"""Which classes are taken for which: counts, the most confused pairs, and the matrix in the hierarchy's order."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imgtool.pipelines.storage.atomic import atomic_write
from imgtool.training.evaluation.plots.order import Block, class_order

NAMED = 40  # classes up to which each is named at its row and column
NUMBERED = 20  # classes up to which counts are written into the cells
SIDE = 1000  # pixels: of the matrix
CELLS = 500  # a side, at most: a cell of one pixel would not be seen
LARGEST_CELL, SMALLEST_SIDE = 56, 240  # pixels
LARGEST_MATRIX = 4096  # classes up to which confusion.npz is written; more would be gigabytes
PAIRS = 1000  # most confused ones in confusion.csv
DPI, LETTER = 100, 13  # of the image; pixels that a line of a label takes
WIDEST_NAME = 26  # letters of a label
INK, SOFT = "#1c2024", "#667079"


@dataclass(frozen=True)
class Confusion:
    """``true``, ``predicted``: int64 [images], class indices of a split's images; ``wnids``, ``names``: a class."""

    true: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    wnids: Sequence[str]
    names: Sequence[str]

    def matrix(self) -> npt.NDArray[np.int64]:
        """int64 [C, C]: images of the row's class that were taken for the column's."""
        classes = len(self.names)
        return np.bincount(self.true * classes + self.predicted, minlength=classes**2).reshape(classes, classes)

    def pairs(self) -> list[tuple[int, int, int]]:
        """(true, predicted, images) of classes that were confused, most images first."""
        wrong = self.true != self.predicted
        keys, counts = np.unique(self.true[wrong] * len(self.names) + self.predicted[wrong], return_counts=True)
        best = np.argsort(-counts, kind="stable")
        true, predicted = np.divmod(keys[best], len(self.names))
        return list(zip(true.tolist(), predicted.tolist(), counts[best].tolist(), strict=True))

    def save(self, folder: Path) -> list[Path]:
        """confusion.csv, confusion.npz (``matrix``; ``order``, as drawn; ``wnids``) and confusion_matrix.png.

        Raises OSError when they cannot be written.
        """
        order, blocks = class_order(self.wnids, self.names)
        written = [folder / "confusion.csv"]
        totals = np.bincount(self.true, minlength=len(self.names))
        with atomic_write(written[0]) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["true_wnid", "true_name", "predicted_wnid", "predicted_name", "images", "of_true"])
            for true, predicted, images in self.pairs()[:PAIRS]:
                columns = [part for i in (true, predicted) for part in (self.wnids[i], self.names[i])]
                table.writerow([*columns, images, totals[true]])
        if len(self.names) <= LARGEST_MATRIX:
            written.append(folder / "confusion.npz")
            with atomic_write(written[-1]) as temporary, open(temporary, "wb") as binary:
                np.savez_compressed(binary, matrix=self.matrix(), order=order, wnids=np.array(self.wnids))
        written.append(folder / "confusion_matrix.png")
        with atomic_write(written[-1]) as temporary:
            draw_confusion(self, order, blocks, temporary)
        return written


def draw_confusion(confusion: Confusion, order: npt.NDArray[np.int64], blocks: Sequence[Block], path: Path) -> None:
    """Writes the matrix as a PNG: a row a true class, in ``order``, coloured by the share of it that was taken for each
    column's class, on a logarithmic scale. More than `CELLS` classes are drawn several to a cell."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    classes = len(order)
    cells = min(classes, CELLS)
    shares, counts = _shares(confusion, order, cells)
    # whole pixels a cell, so that no row is thicker than another
    side = min(SIDE // cells, max(LARGEST_CELL, SMALLEST_SIDE // cells)) * cells
    each = classes <= NAMED
    names = [confusion.names[i] for i in order]
    labels = [Block(name, i, i + 1) for i, name in enumerate(names)] if each else blocks
    left = 30 + 7 * max([len(_short(label.name)) for label in labels], default=0)
    right = 30 + (7 * max([len(_short(block.name)) for block in blocks], default=0) if each else 0)
    width, height, top = max(left + side + right + 100, 640), 70 + side + left, 70
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
    floor = min(float(shares[shares > 0].min(initial=1.0)), 0.1)
    norm = LogNorm(floor, 1.0)
    shown = np.ma.masked_equal(shares, 0)
    image = axes.imshow(shown, cmap="magma_r", norm=norm, interpolation="nearest", extent=(0, classes, classes, 0))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_edgecolor(SOFT)
    for block in blocks:
        size = block.stop - block.start
        axes.add_patch(_frame(block.start, size))
    _label_rows(axes, labels, classes, side, -1)
    _label_columns(axes, labels, classes, side)
    if each:
        _label_rows(axes, blocks, classes, side, 1)
    if classes <= NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if norm(shares[row, column]) > 0.5 else INK
            axes.text(column + 0.5, row + 0.5, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    bar_side = min(side, 320)
    bar = figure.add_axes(((left + side + right) / width, 1 - (top + bar_side) / height, 14 / width, bar_side / height))
    bar.tick_params(labelsize=8)
    figure.colorbar(image, cax=bar, format=lambda value, _: f"{value:.1%}" if value < 0.01 else f"{value:.0%}")
    right_ones = (confusion.true == confusion.predicted).mean()
    figure.text(14 / width, 1 - 26 / height, "Confusion matrix", fontsize=14, weight="bold", color=INK, va="center")
    about = f"rows: true class, columns: predicted; colour: share of the row; {right_ones:.1%} are on the diagonal"
    figure.text(14 / width, 1 - 50 / height, about, fontsize=9, color=SOFT, va="center")
    canvas.print_png(path)


def _shares(
    confusion: Confusion, order: npt.NDArray[np.int64], cells: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """float64 [cells, cells], each row's shares, and int64 [cells, cells], their counts."""
    cell = np.empty(len(order), np.int64)
    cell[order] = np.arange(len(order)) * cells // len(order)
    flat = cell[confusion.true] * cells + cell[confusion.predicted]
    counts = np.bincount(flat, minlength=cells**2).reshape(cells, cells)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), counts


def _frame(start: int, size: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((start, start), size, size, fill=False, edgecolor="#3b7dd8", lw=1.0)


def _short(name: str) -> str:
    return name if len(name) <= WIDEST_NAME else name[: WIDEST_NAME - 1].rstrip() + "…"


def _label_rows(axes: Any, labels: Sequence[Block], classes: int, side: int, towards: int) -> None:
    """Names beside the matrix, on the left (``towards`` -1) or right (1), a line leading to each one's rows."""
    pixel = classes / side
    edge = 0 if towards < 0 else classes
    for label, at in zip(labels, spread([_middle(x) for x in labels], LETTER * pixel, classes), strict=True):
        x = [edge, edge + towards * 5 * pixel, edge + towards * 15 * pixel]
        axes.plot(x, [_middle(label), _middle(label), at], color=SOFT, lw=0.7, clip_on=False)
        where = "right" if towards < 0 else "left"
        axes.text(edge + towards * 18 * pixel, at, _short(label.name), ha=where, va="center", fontsize=8, color=INK)
    axes.set(xlim=(0, classes), ylim=(classes, 0))


def _label_columns(axes: Any, labels: Sequence[Block], classes: int, side: int) -> None:
    """Names below the matrix, standing on end."""
    pixel = classes / side
    for label, at in zip(labels, spread([_middle(x) for x in labels], LETTER * pixel, classes), strict=True):
        y = [classes, classes + 5 * pixel, classes + 15 * pixel]
        axes.plot([_middle(label), _middle(label), at], y, color=SOFT, lw=0.7, clip_on=False)
        axes.text(
            at, classes + 18 * pixel, _short(label.name), ha="center", va="top", rotation=90, fontsize=8, color=INK
        )
    axes.set(xlim=(0, classes), ylim=(classes, 0))


def _middle(block: Block) -> float:
    return (block.start + block.stop) / 2


def spread(wanted: Sequence[float], gap: float, length: float) -> list[float]:
    """Places near the ``wanted`` ones (ascending), at least ``gap`` apart and within 0..``length`` where they fit."""
    places = list(wanted)
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    limit = length - gap / 2
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] - gap
    return places
