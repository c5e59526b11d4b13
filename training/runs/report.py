"""report.html of a run: all that it left behind on one page that needs nothing else, finished or not."""

from __future__ import annotations

import base64
import csv
import io
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from imgtool.pipelines.report.html import details, figure, page, table, text
from imgtool.pipelines.storage.atomic import write_text
from imgtool.training.evaluation.error_analysis import METRICS
from imgtool.training.runs.curves import TOP1, TOP5, Results, best_row, draw_curves, read_results
from imgtool.training.runs.run import Run, run_path
from imgtool.wordnet.errors import CheckpointError

NAME = "report.html"
LONG = 12  # epochs above which their table is folded
PAIRS = 40  # most confused ones on the page
LINES = 200  # of the log's end
SHORT = {
    TOP1: "top-1",
    TOP5: "top-5",
    "images_per_second": "images/s",
    "data_wait": "data wait",
    "val_seconds": "val s",
}


def write_report(run: str | Path, path: Path | None = None) -> Path:
    """Writes the report of a run (a name under runs/ or a path; default: report.html in it); returns where.

    A run that is not finished, or was stopped, has what there is of it. Raises CheckpointError where there is no run.
    """
    folder = run_path(run)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such run; give a name under runs/ or a run's directory")
    settings = Run(folder, quiet=True).read_settings()
    if not isinstance(settings, dict) or not isinstance(settings.get("recipe"), dict):
        raise CheckpointError(f"{folder / 'run.json'} is not that of a run: it has no recipe")
    results = read_results(folder / "results.csv") if (folder / "results.csv").exists() else {}
    metrics = _read_metrics(folder / METRICS)
    candidates = [
        ("Curves", _curves(results)),
        ("Epochs", _epochs(results)),
        ("Measured at the end", _metrics(metrics)),
        ("Confusion", _image_file(folder / "confusion_matrix.png", "In the hierarchy's order") + _pairs(folder)),
        ("Surest mistakes", _image_file(folder / "mistakes.jpg", "True class; below it, what it was taken for")),
        ("First training batches", _batches(folder)),
        ("Recipe", _recipe(settings)),
        ("Log", _log(folder / "log.txt")),
    ]
    sections = [(name, content) for name, content in candidates if content]
    path = path or folder / NAME
    state = "trained" if len(results.get("epoch", ())) >= settings["recipe"].get("epochs", 0) else "in training"
    try:
        write_text(path, page(f"{folder.absolute().name}, {state}", _summary(settings, results), sections))
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror}") from None
    return path


def _summary(settings: dict[str, Any], results: Results) -> str:
    planned = int(settings["recipe"].get("epochs", 0))
    done = len(results.get("epoch", ()))
    rows: list[list[Any]] = []
    if done < planned:
        rows.append(["state", f"not finished: {done:,} of {planned:,} epochs are done"])
    best = best_row(results)
    if best is not None:
        accuracy = f"top-1 {results[TOP1][best]:.2%}"
        if TOP5 in results:
            accuracy += f", top-5 {results[TOP5][best]:.2%}"
        rows.append(["best epoch", f"{results['epoch'][best]:.0f} of {planned:,}: {accuracy}"])
    if done and "time" in results:
        rows.append(["time", _duration(float(results["time"][-1]))])
    if speed := np.nanmean(results["images_per_second"]) if done and "images_per_second" in results else 0:
        rows.append(["speed", f"{speed:,.0f} training images a second"])
    versions = ", ".join(f"{name} {version}" for name, version in settings.get("versions", {}).items())
    rows += [
        ["size", settings.get("size")],
        ["started from", settings.get("weights") or "random weights"],
        ["data", f"{settings.get('data')} (fingerprint {settings.get('fingerprint')})"],
        ["device", settings.get("device")],
        ["seed", str(settings.get("seed"))],
        ["started", settings.get("started")],
        ["command", shlex.join(map(str, settings.get("argv") or []))],
        ["versions", versions],
    ]
    return table([], [row for row in rows if row[1]], align=False)


def _duration(seconds: float) -> str:
    if not np.isfinite(seconds):
        return ""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _curves(results: Results) -> str:
    if not len(results.get("epoch", ())):
        return "<p>No epoch is done yet.</p>"
    file = io.BytesIO()
    draw_curves(results, file)
    steps = len(np.unique(results.get("imgsz", ()))) > 1
    caption = "Dotted: the training images' size changes." if steps else "Of every epoch."
    return figure(_image(file.getvalue(), "png", "Curves of the run"), caption, wide=True)


def _epochs(results: Results) -> str:
    if not len(results.get("epoch", ())):
        return ""
    names = list(results)
    best = best_row(results)
    rows = [[_cell(name, results[name][i]) for name in names] for i in range(len(results["epoch"]))]
    if best is not None:
        rows[best][0] += " ★"
    return details(
        f"{len(rows):,} epochs; ★ is the best",
        table([SHORT.get(name, name) for name in names], rows),
        opened=len(rows) <= LONG,
    )


def _cell(name: str, value: float) -> str:
    if not np.isfinite(value):
        return ""
    if name == "time":
        return _duration(value)
    if name in (TOP1, TOP5, "data_wait"):
        return f"{value:.2%}"
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.4g}"


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return metrics if isinstance(metrics, dict) else {}


def _metrics(metrics: dict[str, Any]) -> str:
    """What validation found, the hierarchical metrics with their conventions."""
    if not metrics:
        return ""
    out = f"<p>The best epoch's model on {text(metrics.get('images'))} images of {text(metrics.get('split'))}.</p>"
    plain = [
        [name, f"{metrics[key]:.2%}" if key != "loss" else f"{metrics[key]:.4f}"]
        for name, key in (("top-1", "top1"), ("top-5", "top5"), ("loss", "loss"))
        if isinstance(metrics.get(key), float)
    ]
    out += table(["metric", "value"], plain)
    hierarchy = {k: v for k, v in (metrics.get("hierarchy") or {}).items() if k not in ("top1", "top5")}
    if hierarchy:
        rows = [
            [name.replace("_", " "), _value(m.get("value")), m.get("convention", "")] for name, m in hierarchy.items()
        ]
        out += "<h3>How bad the mistakes are</h3>" + table(["metric", "value", "measured as"], rows, align=False)
    return out


def _value(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    return " ".join(f"{x:.4f}" if isinstance(x, int | float) else "–" for x in values)


def _pairs(folder: Path) -> str:
    try:
        with open(folder / "confusion.csv", newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file))
        rows = [
            [pair["true_name"], pair["predicted_name"], f"{pair['images']} of {pair['of_true']}"]
            for pair in found[:PAIRS]
        ]
    except (OSError, KeyError):
        return ""
    heading = f"The {len(rows)} most confused pairs" if len(found) > PAIRS else f"{len(rows)} confused pairs"
    return details(heading, table(["true class", "taken for", "images"], rows)) if rows else ""


def _batches(folder: Path) -> str:
    paths = sorted(folder.glob("train_batch*.jpg"))
    return "".join(
        _image_file(path, f"Batch {n}, as the network saw it", wide=False) for n, path in enumerate(paths, 1)
    )


def _recipe(settings: dict[str, Any]) -> str:
    rows = [
        [name, value if isinstance(value, str) else json.dumps(value)] for name, value in settings["recipe"].items()
    ]
    half = (len(rows) + 1) // 2
    parts = [table(["setting", "value"], part) for part in (rows[:half], rows[half:]) if part]
    return f'<div class="columns">{"".join(parts)}</div>'


def _log(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    heading = f"{len(lines):,} lines" + (f", the last {LINES} of them" if len(lines) > LINES else "")
    return details(heading, f"<pre>{text(chr(10).join(lines[-LINES:]))}</pre>")


def _image_file(path: Path, caption: str, wide: bool = True) -> str:
    """An image file of the run within the page; nothing where there is none."""
    try:
        content = path.read_bytes()
    except OSError:
        return ""
    kind = "png" if path.suffix == ".png" else "jpeg"
    return figure(_image(content, kind, caption), caption, wide=wide)


def _image(content: bytes, kind: str, alt: str) -> str:
    return f'<img src="data:image/{kind};base64,{base64.b64encode(content).decode()}" alt="{text(alt)}">'
