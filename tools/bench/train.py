"""Claim: training reaches at least Ultralytics' accuracy in at most half of its time an epoch, on the CPU.

\b
    imgtool bench train --src tiny-imagenet-200.tar

Three parts, each of which --only chooses:

ultralytics: YOLOv8n-cls from random weights by Ultralytics' own trainer, and by ours, for the same epochs at the same
image size, batch and threads, each by its own default recipe. torchvision: resnet18 by a loop in the manner of
torchvision's reference script, and by ours. Each training is a fresh process, turn by turn, one seed a run; all read
the same images, validated after each epoch on the same held-out ones. Seconds are of the median epoch behind the
first, its validation and checkpoint included, by each one's own results.csv. Ours reads what prepare has made of the
images, which takes seconds once and is told apart. Ultralytics gets as many threads as ours (left alone it leaves
a core), and on a CPU chooses to load without workers, whatever it is given; --peer-workers forces them on it.

overhead: images a second of our loop on batches in memory, against a bare loop of the same steps.
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
from imgtool.bench.train_peers import Plan, train
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.threads import available_cpus
from imgtool.wordnet.errors import InputError

PARTS = ("ultralytics", "torchvision", "overhead")
PAIRS = {"ultralytics": ("ours", "ultralytics"), "torchvision": ("ours-resnet18", "torchvision")}
STEADY = 1.03  # fastest by slowest round of a kind, from which on 3 % of overhead drown in noise
PACKAGES = ("torch", "torchvision", "ultralytics", "pillow")


def write_files(src: str, folder: Path, limit: int) -> dict[str, int]:
    """The source's own bytes as folder/SPLIT/CLASS/KEY.JPEG; at most ``limit`` (0: all) of a class in a split."""
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
        raise InputError(f"{src}: it has no images of split {lacking[0]}, and trainings here are validated")
    return counts


@click.command(help=__doc__)
@click.option("--src", type=SourcePath(), help="Tiny-ImageNet as a tar or folder; overhead alone does without.")
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="This part; may be repeated. [all]")
@click.option("--epochs", default=10, show_default=True, type=click.IntRange(1), help="Beside Ultralytics.")
@click.option(
    "--resnet-epochs", default=3, show_default=True, type=click.IntRange(0), help="Beside torchvision; 0: skip."
)
@click.option("--runs", default=2, show_default=True, type=click.IntRange(1), help="Trainings of each, a seed a run.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the first run; then one more.")
@click.option("--batch", default=128, show_default=True, type=click.IntRange(2), help="Samples a step.")
@click.option("--imgsz", default=64, show_default=True, type=click.IntRange(32), help="Side of the images in pixels.")
@click.option("--threads", type=click.IntRange(1), help="Of torch, and workers of the loaders. [the cores]")
@click.option("--peer-workers", type=click.IntRange(0), help="Force so many on Ultralytics. [its own choice: 0]")
@click.option("--limit", default=0, type=click.IntRange(0), help="Images of a class in a split; 0: all.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Of the overhead part.")
@click.option("--steps", default=40, show_default=True, type=click.IntRange(1), help="Of one of its rounds.")
@json_option
@plot_option("top-1 over seconds")
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
        raise click.UsageError("this part needs ultralytics: pip install ultralytics; or choose others with --only")
    if plot_path and not pairs:
        raise click.UsageError("--plot draws trainings, and these options run none")
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
            click.echo(f"prepare, for ours: {result['prepare_seconds']:.1f} s")
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
    """The trainings of both, turn by turn; each is told of when it is done."""
    trained = []
    for seed in seeds:
        for who in PAIRS[part] if seed % 2 == 0 else PAIRS[part][::-1]:
            out = folder / f"{who}-{seed}"
            plan = Plan(str(folder / "files"), str(folder / "data"), str(out), epochs, seed=seed, **settings)
            one = train(who, plan)
            trained.append(one)
            click.echo(
                f"{who:14} seed {seed}: top-1 best {one['best']:.2%}, last {one['last']:.2%}, "
                f"{one['epoch_seconds']:.1f} s an epoch, {one['wall']:.0f} s in all"
            )
    return {"epochs": epochs, "runs": trained}


def show(part: str, result: dict[str, Any]) -> None:
    """Medians of both, and whether ours reaches what it is meant to."""
    medians = {}
    for who in PAIRS[part]:
        rows = [run for run in result["runs"] if run["who"] == who]
        medians[who] = {key: statistics.median(row[key] for row in rows) for key in ("best", "last", "epoch_seconds")}
    us, peer = (medians[who] for who in PAIRS[part])
    ratio = peer["epoch_seconds"] / us["epoch_seconds"]
    click.echo(
        f"ours against {part}, {result['epochs']} epochs, medians: top-1 best {us['best']:.2%} / {peer['best']:.2%}, "
        f"last {us['last']:.2%} / {peer['last']:.2%} (aim: at least theirs); seconds an epoch "
        f"{us['epoch_seconds']:.1f} / {peer['epoch_seconds']:.1f}, {ratio:.2f} x as fast"
        + (" (aim: 2 x)" if part == "ultralytics" else "")
    )


def show_overhead(rates: dict[str, list[float]]) -> None:
    medians = {kind: statistics.median(values) for kind, values in rates.items()}
    for kind, rate in medians.items():
        click.echo(f"{kind:11} {rate:8,.0f} img/s  ({min(rates[kind]):,.0f} to {max(rates[kind]):,.0f})")
    ema = medians["bare + EMA"]
    click.echo(
        f"the loop runs at {medians['loop'] / medians['bare']:.3f} of the bare loop (aim: .97), at "
        f"{medians['loop'] / ema:.3f} of one that averages the weights too, which alone is {ema / medians['bare']:.3f}"
    )
    if max(max(values) / min(values) for values in rates.values()) > STEADY:
        click.echo("the rounds differ by more than what is to be seen: repeat this on a machine that is quiet")


def draw(result: dict[str, Any], path: Path) -> None:
    """Top-1 after each epoch over the seconds since the training began, a line a run, a panel a part."""
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
