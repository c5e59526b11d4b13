"""Draws results.png: the metrics of a run per epoch."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from imgtool.training.runs.run import is_epoch
from imgtool.wordnet.errors import CheckpointError, first_line

Results = dict[str, npt.NDArray[np.float64]]

TOP1, TOP5 = "metrics/accuracy_top1", "metrics/accuracy_top5"
BLUE, ORANGE, SOFT, LINE = "#3b7dd8", "#e07b39", "#667079", "#d9dee3"
MIN_LABEL_GAP = 0.06  # between the labels of two image sizes, as a fraction of a panel's width
MAX_NUMBER = 1e30  # matplotlib cannot draw an axis of much larger ones
MAX_MARKED = 30  # epochs; with more, curves have no markers


def read_results(path: Path) -> Results:
    """Reads results.csv into columns, each float64 [epochs]. Values that are not numbers are NaN.

    Incomplete lines are skipped. Raises CheckpointError if the file cannot be read or has no column ``epoch``.
    """
    try:
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if is_epoch(row.get("epoch")) and None not in row.values()]
            columns = [name for name in reader.fieldnames or () if name]
    except (OSError, csv.Error) as error:
        raise CheckpointError(f"cannot read {path}: {first_line(error)}") from None
    if "epoch" not in columns:
        raise CheckpointError(f"{path} is not a results.csv: it has no column epoch")
    return {name: np.array([_number(row[name]) for row in rows]) for name in columns}


def _number(text: str) -> float:
    """Returns the number; NaN for other text, and for numbers that could not be drawn."""
    try:
        number = float(text)
    except (ValueError, TypeError):
        return math.nan
    return number if abs(number) <= MAX_NUMBER else math.nan


def best_row(results: Results) -> int | None:
    """Returns the row of the epoch that best.pt is from: the highest top-1, of equals the latest. None if no top-1."""
    top1 = results.get(TOP1)
    if top1 is None or not np.isfinite(top1).any():
        return None
    return len(top1) - 1 - int(np.nanargmax(top1[::-1]))


def draw_curves(results: Results, file: Path | IO[bytes]) -> None:
    """Draws losses, accuracies, learning rate and images/s per epoch as a PNG, with marks where the image size changes.

    ``results`` has the columns of `read_results`, with at least one epoch; missing columns are not drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7.5), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2, sharex=True).ravel()
    epochs = results["epoch"]
    _lines(panels[0], results, {"train/loss": "train", "val/loss": "validation"}, "loss", 1)
    _lines(panels[1], results, {TOP1: "top-1", TOP5: "top-5"}, "accuracy (%)", 100)
    _lines(panels[2], results, {"lr/pg0": "learning rate"}, "learning rate", 1)
    _lines(panels[3], results, {"images_per_second": "images/s"}, "training speed (images/s)", 1)
    best = best_row(results)
    if best is not None:
        top1 = results[TOP1]
        panels[1].plot(epochs[best], 100 * top1[best], "*", color=BLUE, markersize=13, markeredgecolor="white")
        panels[1].set_title(f"accuracy (%), best top-1 {top1[best]:.2%} in epoch {epochs[best]:.0f}")
    for panel in panels[3:]:
        panel.set_ylim(bottom=0)
    _mark_sizes(panels, epochs, results.get("imgsz"))
    for panel in panels[2:]:
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
    if len(epochs) == 1:  # otherwise the axis would be labelled in fractions of an epoch
        panels[0].set_xlim(epochs[0] - 1, epochs[0] + 1)
    canvas.print_png(file)


def _lines(panel: Any, results: Results, columns: dict[str, str], title: str, factor: float) -> None:
    for (name, label), colour in zip(columns.items(), (BLUE, ORANGE), strict=False):
        if name in results:
            marker = "o" if len(results["epoch"]) <= MAX_MARKED else ""
            values = factor * results[name]
            panel.plot(results["epoch"], values, marker=marker, markersize=3.5, lw=1.6, color=colour, label=label)
    panel.set_title(title)
    panel.grid(color=LINE, lw=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    panel.margins(x=0.02)
    if len(columns) > 1 and panel.lines:
        panel.legend(frameon=False)


def _mark_sizes(panels: Any, epochs: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64] | None) -> None:
    """Draws a dotted line where the size of the training images changes, and labels the sizes in the speed panel."""
    if sizes is None:
        return
    starts = [i for i in range(1, len(sizes)) if sizes[i] != sizes[i - 1]]
    for panel in panels:
        for i in starts:
            panel.axvline((epochs[i - 1] + epochs[i]) / 2, color=SOFT, lw=0.7, ls=":", zorder=0)
    span, last_label = max(float(epochs[-1] - epochs[0]), 1.0), -math.inf
    for i in [0, *starts]:
        x = epochs[i] if i == 0 else (epochs[i - 1] + epochs[i]) / 2
        if math.isfinite(sizes[i]) and x - last_label >= MIN_LABEL_GAP * span:
            text = f"{sizes[i]:.0f} px" if i == 0 else f"{sizes[i]:.0f}"
            panels[3].annotate(text, (x, 0.02), (3, 0), xycoords=("data", "axes fraction"),
                               textcoords="offset points", fontsize=8, color=SOFT)  # fmt: skip
            last_label = x
