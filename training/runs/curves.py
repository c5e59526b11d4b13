"""results.png: how a run went, epoch by epoch."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import CheckpointError

Results = dict[str, npt.NDArray[np.float64]]

TOP1, TOP5 = "metrics/accuracy_top1", "metrics/accuracy_top5"
BLUE, ORANGE, SOFT, LINE = "#3b7dd8", "#e07b39", "#667079", "#d9dee3"
CLOSEST = 0.06  # of a panel's width: between two image sizes that are both written
FEW = 30  # epochs up to which each is marked with a point


def read_results(path: Path) -> Results:
    """results.csv by column: float64 [epochs], nan for what is empty or no number. Unfinished lines are left out.

    Raises CheckpointError when there is no such file or no column ``epoch`` in it.
    """
    try:
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if (row.get("epoch") or "").isdigit() and None not in row.values()]
            columns = [name for name in reader.fieldnames or () if name]
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    if "epoch" not in columns:
        raise CheckpointError(f"{path} is no table of results: it has no column epoch")
    return {name: np.array([_number(row[name]) for row in rows]) for name in columns}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def best_row(results: Results) -> int | None:
    """The row of the epoch whose weights are best.pt: of the highest top-1, the later of equals. None if none has."""
    top1 = results.get(TOP1)
    if top1 is None or not np.isfinite(top1).any():
        return None
    return len(top1) - 1 - int(np.nanargmax(top1[::-1]))


def draw_curves(results: Results, file: Path | IO[bytes]) -> None:
    """Losses, accuracies, learning rate and images/s over the epochs as a PNG; image sizes are marked where they
    change. ``results`` as `read_results` gives them, at least one epoch; columns that are missing are not drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7.5), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2, sharex=True).ravel()
    epochs = results["epoch"]
    _lines(panels[0], results, {"train/loss": "train", "val/loss": "validation"}, "loss", 1)
    _lines(panels[1], results, {TOP1: "top-1", TOP5: "top-5"}, "accuracy, %", 100)
    _lines(panels[2], results, {"lr/pg0": "learning rate"}, "learning rate", 1)
    _lines(panels[3], results, {"images_per_second": "images/s"}, "training images a second", 1)
    best = best_row(results)
    if best is not None:
        top1 = results[TOP1]
        panels[1].plot(epochs[best], 100 * top1[best], "*", color=BLUE, markersize=13, markeredgecolor="white")
        panels[1].set_title(f"accuracy: best top-1 {top1[best]:.2%} in epoch {epochs[best]:.0f}")
    for panel in panels[3:]:
        panel.set_ylim(bottom=0)
    _mark_sizes(panels, epochs, results.get("imgsz"))
    for panel in panels[2:]:
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
    if len(epochs) == 1:  # an axis around a single point would count in hundredths of an epoch
        panels[0].set_xlim(epochs[0] - 1, epochs[0] + 1)
    canvas.print_png(file)


def _lines(panel: Any, results: Results, columns: dict[str, str], title: str, factor: float) -> None:
    for (name, label), colour in zip(columns.items(), (BLUE, ORANGE), strict=False):
        if name in results:
            marker = "o" if len(results["epoch"]) <= FEW else ""
            values = factor * results[name]
            panel.plot(results["epoch"], values, marker=marker, markersize=3.5, lw=1.6, color=colour, label=label)
    panel.set_title(title)
    panel.grid(color=LINE, lw=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    panel.margins(x=0.02)
    if len(columns) > 1 and panel.lines:
        panel.legend(frameon=False)


def _mark_sizes(panels: Any, epochs: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64] | None) -> None:
    """A dotted line where the training images' size changes, the sizes written below the speed they explain."""
    if sizes is None:
        return
    starts = [i for i in range(1, len(sizes)) if sizes[i] != sizes[i - 1]]
    for panel in panels:
        for i in starts:
            panel.axvline((epochs[i - 1] + epochs[i]) / 2, color=SOFT, lw=0.7, ls=":", zorder=0)
    span, last = max(float(epochs[-1] - epochs[0]), 1.0), -math.inf
    for i in [0, *starts]:
        at = epochs[i] if i == 0 else (epochs[i - 1] + epochs[i]) / 2
        if math.isfinite(sizes[i]) and at - last >= CLOSEST * span:
            text = f"{sizes[i]:.0f} px" if i == 0 else f"{sizes[i]:.0f}"
            panels[3].annotate(text, (at, 0.02), (3, 0), xycoords=("data", "axes fraction"),
                               textcoords="offset points", fontsize=8, color=SOFT)  # fmt: skip
            last = at
