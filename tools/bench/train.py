"""Claim: training reaches at least Ultralytics' accuracy in at most half of its time per epoch, on a CPU.

\b
    imgtool bench train --src tiny-imagenet-200.tar

There are three parts; --only selects them.

ultralytics: YOLOv8n-cls from random weights, trained by Ultralytics' trainer and by imgtool, for the same epochs at the
same image size, batch size and threads, each with its default recipe. torchvision: resnet18, trained by a loop after
torchvision's reference script and by imgtool. Each training is a separate process; the two take turns, with one seed
per run. All read the same images and validate after each epoch on the same held-out ones. The time per epoch, from
results.csv, is the median over the epochs after the first, including validation and checkpoint. imgtool reads a data
set made by prepare, whose time is reported separately. Ultralytics gets as many threads as imgtool (by default it
leaves one core unused). On a CPU it loads without workers, whatever is requested; --peer-workers overrides this.

overhead: images/s of imgtool's loop on batches in memory, compared with a minimal loop of the same steps.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from imgtool.bench import machine
from imgtool.bench.options import DRAWN, SourcePath, json_option, plot_option, rehearsal, versions, write_json
from imgtool.bench.train_peers import TrainingSpec, train
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.threads import available_cpus
from imgtool.wordnet.errors import InputError

PARTS = ("ultralytics", "torchvision", "overhead")
PAIRS = {"ultralytics": ("ours", "ultralytics"), "torchvision": ("ours-resnet18", "torchvision")}
MAX_SPREAD = 1.03  # fastest by slowest round of a kind; above it, an overhead of 3 % is not measurable
PACKAGES = ("torch", "torchvision", "ultralytics", "pillow")


def write_files(src: str, folder: Path, limit: int) -> dict[str, int]:
    """Writes the source's files as folder/SPLIT/CLASS/KEY.JPEG, at most ``limit`` (0: all) per class and split."""
    source = open_source(src)
    counts = {"train": 0, "val": 0}
    with LocatorReader(source.root) as reader:
        for split in counts:
            of_class: dict[str, int] = {}
            for record in source.records(split) if split in source.splits else ():
                wnid = record.wnids[0]
                of_class[wnid] = of_class.get(wnid, 0) + 1
                if limit and of_class[wnid] > limit:
                    continue
                path = folder / split / wnid / f"{record.key}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(reader.read(record.locator))
                counts[split] += 1
    if lacking := [split for split, count in counts.items() if not count]:
        raise InputError(f"{src}: the source has no images of split {lacking[0]}; this benchmark needs train and val")
    return counts


@click.command(help=__doc__)
@click.option("--src", type=SourcePath(), help="Tiny-ImageNet as a tar or folder; not needed for overhead alone.")
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Run only this part; may be repeated. [all]")
@click.option("--epochs", default=10, show_default=True, type=click.IntRange(1), help="Epochs of the ultralytics part.")
@click.option(
    "--resnet-epochs",
    default=3,
    show_default=True,
    type=click.IntRange(0),
    help="Epochs of the torchvision part; 0: skip it.",
)
@click.option(
    "--runs", default=2, show_default=True, type=click.IntRange(1), help="Trainings of each, one seed per run."
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Seed of the first run; the next runs count up.",
)
@click.option("--batch", default=128, show_default=True, type=click.IntRange(2), help="Samples per step.")
@click.option("--imgsz", default=64, show_default=True, type=click.IntRange(32), help="Side of the images in pixels.")
@click.option(
    "--threads", type=click.IntRange(1), help="Threads of torch, and workers of the loaders. [number of cores]"
)
@click.option("--peer-workers", type=click.IntRange(0), help="Loader workers to force on Ultralytics. [its choice: 0]")
@click.option("--limit", default=0, type=click.IntRange(0), help="Most images per class and split; 0: all.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Rounds of the overhead part.")
@click.option(
    "--steps", default=40, show_default=True, type=click.IntRange(1), help="Steps per round of the overhead part."
)
@json_option
@plot_option("top-1 over time")
@rehearsal(src=DRAWN, epochs=1, resnet_epochs=1, runs=1, batch=8, imgsz=32, threads=1, rounds=1, steps=1)
def main(
    src: str | None,
    only: tuple[str, ...],
    epochs: int,
    resnet_epochs: int,
    runs: int,
    seed: int,
    batch: int,
    imgsz: int,
    threads: int | None,
    peer_workers: int | None,
    limit: int,
    rounds: int,
    steps: int,
    json_path: Path | None,
    plot_path: Path | None,
    rehearse: bool,
) -> None:
    parts = only or PARTS
    lengths = {"ultralytics": epochs, "torchvision": resnet_epochs}
    pairs = {part: length for part, length in lengths.items() if part in parts and length}
    installed = versions(PACKAGES)
    if pairs and src is None:
        raise click.UsageError("give --src, the images to train on")
    if "ultralytics" in pairs and "ultralytics" not in installed:
        raise click.UsageError(
            "the ultralytics part needs Ultralytics: pip install ultralytics, or select other parts with --only"
        )
    if plot_path and not pairs:
        raise click.UsageError("--plot draws trainings, but these options run none")
    result: dict[str, Any] = {
        "bench": "train",
        "rehearsal": rehearse,
        "machine": machine.describe(),
        "versions": installed,
        "settings": {"batch": batch, "imgsz": imgsz, "limit": limit, "peer_workers": peer_workers},
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if pairs:
            result["images"] = write_files(str(src), folder / "files", limit)
            started = time.perf_counter()
            prepare(folder / "files", folder / "data")
            result["prepare_seconds"] = round(time.perf_counter() - started, 2)
            click.echo(f"prepare, for imgtool: {result['prepare_seconds']:.1f} s")
        settings = {"batch": batch, "imgsz": imgsz, "threads": threads or available_cpus()}
        result["settings"] |= settings
        for part, length in pairs.items():
            result[part] = compare(
                part, length, range(seed, seed + runs), folder, {**settings, "peer_workers": peer_workers}
            )
            show(part, result[part])
    if "overhead" in parts:
        import torch

        from imgtool.bench import train_overhead

        if threads:
            torch.set_num_threads(threads)
        result["overhead"] = train_overhead.measure(rounds, steps, batch, imgsz)
        show_overhead(result["overhead"])
    write_json(json_path, result)
    if plot_path:
        draw(result, plot_path)


def compare(part: str, epochs: int, seeds: range, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Runs the trainings of both, in turns, and prints each result."""
    trained = []
    for seed in seeds:
        for who in PAIRS[part] if seed % 2 == 0 else PAIRS[part][::-1]:
            out = folder / f"{who}-{seed}"
            spec = TrainingSpec(str(folder / "files"), str(folder / "data"), str(out), epochs, seed=seed, **settings)
            one = train(who, spec)
            trained.append(one)
            click.echo(
                f"{who:14} seed {seed}: top-1 best {one['best']:.2%}, last {one['last']:.2%}, "
                f"{one['epoch_seconds']:.1f} s per epoch, {one['wall']:.0f} s in total"
            )
    return {"epochs": epochs, "runs": trained}


def show(part: str, result: dict[str, Any]) -> None:
    """Prints the medians of both next to the targets."""
    medians = {}
    for who in PAIRS[part]:
        rows = [run for run in result["runs"] if run["who"] == who]
        medians[who] = {key: statistics.median(row[key] for row in rows) for key in ("best", "last", "epoch_seconds")}
    us, peer = (medians[who] for who in PAIRS[part])
    ratio = peer["epoch_seconds"] / us["epoch_seconds"]
    click.echo(
        f"imgtool / {part}, {result['epochs']} epochs, medians: top-1 best {us['best']:.2%} / {peer['best']:.2%}, "
        f"last {us['last']:.2%} / {peer['last']:.2%} (target: at least theirs); seconds per epoch "
        f"{us['epoch_seconds']:.1f} / {peer['epoch_seconds']:.1f}, {ratio:.2f} x as fast"
        + (" (target: 2 x)" if part == "ultralytics" else "")
    )


def show_overhead(rates: dict[str, list[float]]) -> None:
    medians = {kind: statistics.median(values) for kind, values in rates.items()}
    for kind, rate in medians.items():
        click.echo(f"{kind:11} {rate:8,.0f} images/s  ({min(rates[kind]):,.0f} to {max(rates[kind]):,.0f})")
    ema = medians["bare + EMA"]
    click.echo(
        f"the training loop reaches {medians['loop'] / medians['bare']:.3f} of the minimal loop's rate (target: .97), "
        f"{medians['loop'] / ema:.3f} of that with EMA, which itself reaches {ema / medians['bare']:.3f}"
    )
    if max(max(values) / min(values) for values in rates.values()) > MAX_SPREAD:
        click.echo("the rounds differ by more than the overhead to be measured: repeat this on an idle machine")


def draw(result: dict[str, Any], path: Path) -> None:
    """Plots top-1 after each epoch over the time since the start, one line per run, one panel per part."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [part for part in PAIRS if part in result]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.5 * len(panels), 4), squeeze=False)
    for axis, part in zip(axes[0], panels, strict=True):
        for run in result[part]["runs"]:
            axis.plot(
                [row["time"] for row in run["curve"]],
                [100 * row["top1"] for row in run["curve"]],
                marker=".",
                color="C0" if run["who"].startswith("ours") else "C1",
                label=run["who"] if run["seed"] == result[part]["runs"][0]["seed"] else None,
            )
        axis.set(xlabel="seconds", ylabel="top-1, %")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)
