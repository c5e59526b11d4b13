"""Parts "train" and "accuracy": `imgtool train` as a user starts it, each in a process of its own.

train: a few epochs of each size by its own recipe, at one image size throughout, from shards of repeated images;
rates behind the first epoch, which compiles. accuracy: a real training to its end, resumed from call to call.
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
from imgtool.bench.gpu.plan import Plan
from imgtool.bench.gpu.process import Utilisation, imgtool, last_line, run
from imgtool.bench.gpu.record import Record
from imgtool.bench.gpu.table import Measured, Row, good, median
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.prepare import prepare
from imgtool.training import recipes
from imgtool.training.engine.profiler import SLOW_LOADER
from imgtool.wordnet.errors import TrainingError

ENOUGH = 15_000  # images/s of n, end to end
TINY_SIDE = 64
PARTS = (1, 2, 4, 8)  # that a batch is computed in, until it fits the memory


def measure_train(plan: Plan, record: Record) -> None:
    data = data_set(plan, plan.scale.train_side)
    for size in plan.scale.sizes:
        record.measure(f"{size} {plan.image_size}", partial(_train, plan, record, data, size))


def _train(plan: Plan, record: Record, data: Dataset, size: str) -> dict[str, Any]:
    epochs = plan.scale.train_epochs
    batch = plan.scale.train_batch or recipes.load(size).batch
    home, log = plan.work / "train" / size, plan.work / "train" / f"{size}.log"
    log.unlink(missing_ok=True)
    for parts in PARTS:
        shutil.rmtree(home, ignore_errors=True)
        recipe = plan.work / "train" / f"{size}.toml"
        _write_recipe(recipe, size, epochs=epochs, batch=batch, accumulate=parts, imgsz=plan.image_size)
        command = imgtool("train", "--size", size, "--recipe", str(recipe), "--batch", str(batch), "--no-plots")
        command += ["--data", str(data.path), "--device", str(plan.device), "--name", str(home.resolve())]
        with Utilisation(home / "results.csv") as busy:
            code = run(command, record.left, log)
        if code == 0:
            break
        if "out of memory" not in last_line(log):
            raise TrainingError(f"imgtool train ended with exit code {code}: {last_line(log)} ({log})")
    else:
        return {"failed": "out of memory"}
    rows = read_results(home / "results.csv")[1:]
    waited = statistics.median(row["data_wait"] for row in rows)
    used = busy.behind(1)
    return {
        "size": size,
        "image_size": plan.image_size,
        "rates": [row["images_per_second"] for row in rows],
        "data_wait": waited,
        "gpu_percent": round(statistics.mean(used), 1) if used else None,
        "bound": "loader" if waited > SLOW_LOADER else "model",
        "batch": batch,
        "accumulate": parts,
        "data": data.path.name,
    }


def _write_recipe(path: Path, size: str, **changes: Any) -> None:
    """The size's own recipe with some settings changed, and without its smaller images at the start."""
    recipe = recipes.load(size).override(progressive=(), **changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    # JSON's numbers, texts, truths and lists are TOML's too
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in recipe.to_dict().items()))


def read_results(path: Path) -> list[dict[str, float]]:
    """A row an epoch of results.csv."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def measure_accuracy(plan: Plan, record: Record) -> None:
    """Trains on, from where an earlier call was stopped, until the epochs are done or the time is over."""
    assert plan.tiny is not None
    epochs, name = plan.scale.epochs, f"n {TINY_SIDE}"
    home = plan.work / f"tiny-n-{epochs}-{plan.device.type}"
    data = plan.work / f"{Path(plan.tiny).name.removesuffix('.tar')}-{TINY_SIDE}"
    log = home.with_suffix(".log")
    done = record.measured.pop(name, None) if plan.again else record.measured.get(name)
    if plan.again:
        shutil.rmtree(home, ignore_errors=True)
    elif done and done["epochs"] == epochs:
        click.echo(f"{name}: all {epochs} epochs are done, commit {done['commit']}; --again trains anew")
        return
    if not (data / "dataset.json").exists():
        prepare(plan.tiny, data)
    command = imgtool(
        "train", "--device", str(plan.device), "--name", str(home.resolve()), "--data", str(data.resolve())
    )
    if any(home.glob("weights/last*.pt")):
        command.append("--resume")
    else:
        shutil.rmtree(home, ignore_errors=True)
        command += ["--size", "n", "--imgsz", str(TINY_SIDE), "--epochs", str(epochs)]
    try:
        code = run(command, record.left, log)
    finally:
        _keep(plan, record, name, home, Dataset(data))
    if code:
        raise TrainingError(f"imgtool train ended with exit code {code}: {last_line(log)} ({log})")


def _keep(plan: Plan, record: Record, name: str, home: Path, data: Dataset) -> None:
    """What the run has come to so far, with its curve and drawing."""
    rows = read_results(home / "results.csv") if (home / "results.csv").exists() else []
    if not rows:
        click.echo("accuracy: stopped within the first epoch; the next call goes on")
        return
    for kind in ("csv", "png"):
        if (home / f"results.{kind}").exists():
            shutil.copyfile(home / f"results.{kind}", plan.out / f"gpu-accuracy.{kind}")
    best = max(rows, key=lambda row: row["metrics/accuracy_top1"])
    result = {
        "data": Path(str(plan.tiny)).name,
        "classes": data.num_classes,
        "train": data.num_samples("train"),
        "val": data.num_samples("val"),
        "epochs": len(rows),
        "of": plan.scale.epochs,
        "hours": round(rows[-1]["time"] / 3600, 4),
        "top1": best["metrics/accuracy_top1"],
        "top5": best["metrics/accuracy_top5"],
        "last_top1": rows[-1]["metrics/accuracy_top1"],
        "rates": [row["images_per_second"] for row in rows],
    }
    record.put(name, result)


def train_rows(measured: Measured) -> list[Row]:
    out = []
    for one in good(measured):
        rate = median(one)
        gpu = "" if one["gpu_percent"] is None else f", GPU busy {one['gpu_percent']:.0f} %"
        figure = f"{rate:,.0f} images/s, data wait {one['data_wait']:.0%}{gpu}: bound by the {one['bound']}"
        aim = one["size"] == "n"
        met = rate >= ENOUGH if aim else None
        what = f"imgtool train, {one['size']} at {one['image_size']}, batch {one['batch']}"
        out.append(Row(what, figure, f"{ENOUGH:,}" if aim else "", met, len(one["rates"])))
    return out


def accuracy_rows(measured: Measured) -> list[Row]:
    out = []
    for one in good(measured):
        what = f"n at {TINY_SIDE} on {one['data']}, {one['classes']} classes, {one['epochs']} of {one['of']} epochs"
        out.append(Row(what, f"top-1 {one['top1']:.2%}, top-5 {one['top5']:.2%}, {one['hours']:.2f} h"))
    return out
