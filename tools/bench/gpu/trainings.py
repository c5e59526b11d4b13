"""Parts "train" and "accuracy": `imgtool train` as a user runs it, in a separate process.

train: a few epochs of each size with its recipe, but at a constant image size, from shards of repeated images. Rates
are measured after the first epoch, which includes compilation. accuracy: one complete training, which each call
resumes.
"""

from __future__ import annotations

import csv
import json
import shutil
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import click

from imgtool.bench.gpu.images import data_set
from imgtool.bench.gpu.process import Utilisation, imgtool, last_line, run
from imgtool.bench.gpu.results import PartResults
from imgtool.bench.gpu.settings import BenchSettings
from imgtool.bench.gpu.table import Measured, Row, median, successful
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.prepare import prepare
from imgtool.training import recipes
from imgtool.training.engine.profiler import SLOW_LOADER
from imgtool.wordnet.errors import TrainingError

TARGET = 15_000  # images/s of size n, end to end
TINY_SIDE = 64
ACCUMULATE = (1, 2, 4, 8)  # micro-batches per batch; more are tried until they fit into memory


def measure_train(settings: BenchSettings, results: PartResults) -> None:
    data = data_set(settings, settings.workload.train_side)
    for size in settings.workload.sizes:
        results.measure(f"{size} {settings.image_size}", partial(_train, settings, results, data, size))


def _train(settings: BenchSettings, results: PartResults, data: Dataset, size: str) -> dict[str, Any]:
    epochs = settings.workload.train_epochs
    batch = settings.workload.train_batch or recipes.load(size).batch
    home, log = settings.work / "train" / size, settings.work / "train" / f"{size}.log"
    log.unlink(missing_ok=True)
    for accumulate in ACCUMULATE:
        shutil.rmtree(home, ignore_errors=True)
        recipe = settings.work / "train" / f"{size}.toml"
        _write_recipe(recipe, size, epochs=epochs, batch=batch, accumulate=accumulate, imgsz=settings.image_size)
        command = imgtool("train", "--size", size, "--recipe", str(recipe), "--batch", str(batch), "--no-plots")
        command += ["--data", str(data.path), "--device", str(settings.device), "--name", str(home.resolve())]
        with Utilisation(home / "results.csv") as busy:
            code = run(command, results.seconds_left, log)
        if code == 0:
            break
        if "out of memory" not in last_line(log):
            raise TrainingError(f"imgtool train ended with exit code {code}: {last_line(log)} ({log})")
    else:
        return {"failed": "out of memory"}
    rows = read_results(home / "results.csv")[1:]
    waited = statistics.median(row["data_wait"] for row in rows)
    used = busy.after(1)
    return {
        "size": size,
        "image_size": settings.image_size,
        "rates": [row["images_per_second"] for row in rows],
        "data_wait": waited,
        "gpu_percent": round(statistics.mean(used), 1) if used else None,
        "bound": "loader" if waited > SLOW_LOADER else "model",
        "batch": batch,
        "accumulate": accumulate,
        "data": data.path.name,
    }


def _write_recipe(path: Path, size: str, **changes: Any) -> None:
    """Writes the recipe of a size with changed settings and without progressive image sizes."""
    recipe = recipes.load(size).override(progressive=(), **changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    # numbers, strings, booleans and lists are written the same way in JSON and TOML
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in recipe.to_dict().items()))


def read_results(path: Path) -> list[dict[str, float]]:
    """Reads results.csv, one row per epoch."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def measure_accuracy(settings: BenchSettings, results: PartResults) -> None:
    """Trains, resuming what an earlier call began, until all epochs are done or the time is over."""
    assert settings.tiny is not None
    epochs, name = settings.workload.epochs, f"n {TINY_SIDE}"
    home = settings.work / f"tiny-n-{epochs}-{settings.device.type}"
    data = settings.work / f"{Path(settings.tiny).name.removesuffix('.tar')}-{TINY_SIDE}"
    log = home.with_suffix(".log")
    done = results.measured.pop(name, None) if settings.again else results.measured.get(name)
    if settings.again:
        shutil.rmtree(home, ignore_errors=True)
    elif done and done["epochs"] == epochs:
        click.echo(f"{name}: all {epochs} epochs are done at commit {done['commit']}; --again trains from scratch")
        return
    if not (data / "dataset.json").exists():
        prepare(settings.tiny, data)
    command = imgtool(
        "train", "--device", str(settings.device), "--name", str(home.resolve()), "--data", str(data.resolve())
    )
    if any(home.glob("weights/last*.pt")):
        command.append("--resume")
    else:
        shutil.rmtree(home, ignore_errors=True)
        command += ["--size", "n", "--imgsz", str(TINY_SIDE), "--epochs", str(epochs)]
    try:
        code = run(command, results.seconds_left, log)
    finally:
        _keep(settings, results, name, home, Dataset(data))
    if code:
        raise TrainingError(f"imgtool train ended with exit code {code}: {last_line(log)} ({log})")


def _keep(settings: BenchSettings, results: PartResults, name: str, home: Path, data: Dataset) -> None:
    """Stores the state of the run, and copies its results.csv and plot."""
    rows = read_results(home / "results.csv") if (home / "results.csv").exists() else []
    if not rows:
        click.echo("accuracy: stopped within the first epoch; the next call resumes it")
        return
    for kind in ("csv", "png"):
        if (home / f"results.{kind}").exists():
            shutil.copyfile(home / f"results.{kind}", settings.out / f"gpu-accuracy.{kind}")
    best = max(rows, key=lambda row: row["metrics/accuracy_top1"])
    result = {
        "data": Path(str(settings.tiny)).name,
        "classes": data.num_classes,
        "train": data.num_samples("train"),
        "val": data.num_samples("val"),
        "epochs": len(rows),
        "of": settings.workload.epochs,
        "hours": round(rows[-1]["time"] / 3600, 4),
        "top1": best["metrics/accuracy_top1"],
        "top5": best["metrics/accuracy_top5"],
        "last_top1": rows[-1]["metrics/accuracy_top1"],
        "rates": [row["images_per_second"] for row in rows],
    }
    results.put(name, result)


def train_rows(measured: Measured) -> list[Row]:
    out = []
    for one in successful(measured):
        rate = median(one)
        gpu = "" if one["gpu_percent"] is None else f", GPU busy {one['gpu_percent']:.0f} %"
        figure = f"{rate:,.0f} images/s, data wait {one['data_wait']:.0%}{gpu}: limited by the {one['bound']}"
        aim = one["size"] == "n"
        met = rate >= TARGET if aim else None
        what = f"imgtool train, {one['size']} at {one['image_size']}, batch {one['batch']}"
        out.append(Row(what, figure, f"{TARGET:,}" if aim else "", met, len(one["rates"])))
    return out


def accuracy_rows(measured: Measured) -> list[Row]:
    out = []
    for one in successful(measured):
        what = f"n at {TINY_SIDE} on {one['data']}, {one['classes']} classes, {one['epochs']} of {one['of']} epochs"
        out.append(Row(what, f"top-1 {one['top1']:.2%}, top-5 {one['top5']:.2%}, {one['hours']:.2f} h"))
    return out
