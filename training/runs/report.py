"""report.html of a run, finished or not: everything that the run has written, on one self-contained page."""

from __future__ import annotations

import csv
import io
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from imgtool.pipelines.report.rendering import data_uri, duration_text, render
from imgtool.pipelines.storage.atomic import write_text
from imgtool.training.evaluation.error_analysis import METRICS
from imgtool.training.runs.curves import TOP1, TOP5, Results, best_row, draw_curves, read_results
from imgtool.training.runs.run import Run, run_path
from imgtool.wordnet.errors import CheckpointError, first_line

NAME = "report.html"
MAX_OPEN_EPOCHS = 12  # a longer table of epochs is folded
MAX_PAIRS = 40  # most confused pairs of classes on the page
MAX_LOG_LINES = 200  # from the end of the log
COLUMN_LABELS = {
    "epoch": "Epoch",
    "time": "Time",
    "train/loss": "Train loss",
    TOP1: "Top-1",
    TOP5: "Top-5",
    "val/loss": "Val loss",
    "lr/pg0": "Learning rate",
    "imgsz": "Image size (px)",
    "images_per_second": "Images/s",
    "data_wait": "Data wait",
    "val_seconds": "Validation (s)",
    "bad_steps": "Skipped steps",
}


def write_report(run: str | Path, path: Path | None = None) -> Path:
    """Writes the report of a run and returns its path.

    ``run`` is a name under runs/ or a path; the default ``path`` is report.html in the run's directory. The report of
    an unfinished run has what exists so far. Raises CheckpointError if there is no run, or the page cannot be written.
    """
    folder = run_path(run)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such run; give a name under runs/ or a run's directory")
    settings = Run(folder, quiet=True).read_settings("recipe")
    try:
        page = _page(folder, settings)
    except CheckpointError:
        raise
    except Exception as error:  # the files of a run may have been edited in any way
        raise CheckpointError(f"{folder}: a file of this run is damaged: {first_line(error)}") from error
    path = path or folder / NAME
    try:
        write_text(path, page)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror}") from None
    return path


def _page(folder: Path, settings: dict[str, Any]) -> str:
    results = read_results(folder / "results.csv") if (folder / "results.csv").exists() else {}
    metrics = _read_metrics(folder / METRICS)
    return render(
        Path(__file__).with_name("report.html.j2"),
        name=folder.absolute().name,
        done=len(results.get("epoch", ())),
        planned=int(settings["recipe"].get("epochs", 0)),
        summary=_summary(settings, results),
        curves=_curves(results),
        results=results,
        column_labels=COLUMN_LABELS,
        best_row=best_row(results),
        max_open_epochs=MAX_OPEN_EPOCHS,
        metrics=metrics,
        hierarchy=_hierarchy(metrics),
        confusion_matrix=_image_file(folder / "confusion_matrix.png", "Classes in the order of WordNet's hierarchy"),
        confused_pairs=_confused_pairs(folder / "confusion.csv"),
        max_pairs=MAX_PAIRS,
        mistakes=_image_file(folder / "mistakes.jpg", "True class; below it the predicted class and its probability"),
        batches=[
            _image_file(file, f"Batch {n}, as the network saw it")
            for n, file in enumerate(sorted(folder.glob("train_batch*.jpg")), 1)
        ],
        recipe={k: v if isinstance(v, str) else json.dumps(v) for k, v in settings["recipe"].items()},
        log=_log(folder / "log.txt"),
        max_log_lines=MAX_LOG_LINES,
    )


def _summary(settings: dict[str, Any], results: Results) -> dict[str, Any]:
    """What identifies the run, by label; empty values are left off the page."""
    done, best = len(results.get("epoch", ())), best_row(results)
    accuracy = duration = speed = ""
    if best is not None:
        accuracy = f"top-1 {results[TOP1][best]:.2%}"
        accuracy += f", top-5 {results[TOP5][best]:.2%}" if TOP5 in results else ""
        accuracy = f"{results['epoch'][best]:,.0f} of {settings['recipe'].get('epochs', 0):,}: {accuracy}"
    if done and "time" in results:
        duration = duration_text(float(results["time"][-1]))
    if done and np.isfinite(results.get("images_per_second", np.nan)).any():
        speed = f"{np.nanmean(results['images_per_second']):,.0f} training images/s"
    return {
        "Best epoch": accuracy,
        "Training time": duration and f"{duration} (h:mm:ss)",
        "Speed": speed,
        "Model size": settings.get("size"),
        "Initial weights": settings.get("weights") or "random",
        "Data": f"{settings.get('data')} (fingerprint {settings.get('fingerprint')})",
        "Device": settings.get("device"),
        "Seed": str(settings.get("seed")),
        "Started": settings.get("started"),
        "Command": shlex.join(map(str, settings.get("argv") or [])),
        "Versions": ", ".join(f"{name} {version}" for name, version in settings.get("versions", {}).items()),
    }


def _curves(results: Results) -> dict[str, str] | None:
    if not len(results.get("epoch", ())):
        return None
    file = io.BytesIO()
    draw_curves(results, file)
    caption = "Losses, accuracies, learning rate and speed per epoch."
    if len(np.unique(results.get("imgsz", ()))) > 1:
        caption += " Dotted lines: the training image size changes."
    return _image(file.getvalue(), "png", caption)


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return metrics if isinstance(metrics, dict) else {}


def _hierarchy(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The hierarchical metrics: name, values and how each is defined."""
    found = {k: v for k, v in (metrics.get("hierarchy") or {}).items() if k not in ("top1", "top5")}
    out = []
    for name, metric in found.items():
        value = metric.get("value")
        values = value if isinstance(value, list) else [value]
        out.append({"name": name.replace("_", " "), "value": values, "definition": metric.get("convention", "")})
    return out


def _confused_pairs(path: Path) -> list[dict[str, str]]:
    """The rows of confusion.csv, most confused first; none if it is missing or has other columns."""
    columns = ("true_name", "predicted_name", "images", "of_true")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [{name: row[name] for name in columns} for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, csv.Error):
        return []


def _log(path: Path) -> list[str] | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None


def _image_file(path: Path, caption: str) -> dict[str, str] | None:
    """An image file of the run; None if it does not exist."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return _image(content, "png" if path.suffix == ".png" else "jpeg", caption)


def _image(content: bytes, kind: str, caption: str) -> dict[str, str]:
    return {"uri": data_uri(content, kind), "caption": caption}
