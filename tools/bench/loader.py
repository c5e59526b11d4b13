"""Claim: the native loader loads crops from JPEG at least twice as fast as FFCV's, and faster than any other loader.

\b
    imgtool bench loader --src ILSVRC2012  # the claim: every installed loader, on the same stored images
    imgtool bench loader --data data/imagenet  # your data: can this machine feed a model, and what is the bottleneck?

All loaders make the same kind of batches: random crops of area (0.08, 1) resized to 224 pixels, flipped at random,
uint8, from JPEG of quality 90 with a longer side of 500 and of 400 pixels. FFCV reads a .beton written by prepare. DALI
(on the CPU), torch's DataLoader with Pillow and torchvision, and Ultralytics' classification loader read the same JPEGs
as files in class folders. Each loader is set up once. The loaders take turns, with one epoch per round, each starting
when the CPU is idle. The rate excludes the first six batches. "entropy" is the upper bound: a loop that only
entropy-decodes the rows needed for the same crops.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from imgtool.bench import loader_peers as peers
from imgtool.bench import machine
from imgtool.bench.options import (
    DRAWN,
    SIZES,
    CommaList,
    FiniteRange,
    SourcePath,
    json_option,
    plot_option,
    rehearsal,
    versions,
    write_json,
)
from imgtool.bench.prepare import first_images, write_layouts
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import open_loader
from imgtool.pipelines.loaders.base import Loader
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.wordnet.errors import InputError

SIDES = (500, 400)
STORES = ("jpeg", "jpeg-indexed", "raw")
Epoch = Callable[[], Iterable[Any]]

WARMUP_BATCHES = 6
"""Batches of an epoch that are not timed, because some loaders prepare them in advance."""


def settle() -> None:
    """Waits, for a minute at most, until this process and its children are idle.

    Some loaders continue with batches of the next epoch.
    """
    for _ in range(300):
        before = _busy()
        time.sleep(0.2)
        if _busy() - before < 0.02:
            return


def _busy() -> float:
    """Returns the CPU seconds that this process and its living descendants have used.

    Without /proc, only this process is counted.
    """
    times: dict[int, tuple[int, int]] = {}  # by process: parent, clock ticks
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process has ended
            pid, _, rest = path.read_text(errors="replace").partition(" ")
            columns = rest.rpartition(")")[2].split()
            times[int(pid)] = int(columns[1]), int(columns[11]) + int(columns[12])
    if os.getpid() not in times:
        return time.process_time()
    family = {os.getpid()}
    while more := {pid for pid, (parent, _) in times.items() if parent in family} - family:
        family |= more
    return sum(times[pid][1] for pid in family) / os.sysconf("SC_CLK_TCK")


def check_batch(images: int, batch: int) -> None:
    """Raises InputError if an epoch has no complete batch left to time."""
    if images // batch <= WARMUP_BATCHES:
        raise InputError(
            f"{images:,} samples are {images // batch:,} batches of {batch:,}, but more than {WARMUP_BATCHES} are "
            "needed: give a smaller --batch, or larger --images or --repeat"
        )


def rate_of(epoch: Epoch, batch: int) -> tuple[float, float]:
    """Returns images/s after the first ``WARMUP_BATCHES`` batches of an epoch, and seconds until the first batch."""
    settle()
    started = time.perf_counter()
    batches = iter(epoch())
    next(batches)
    first = time.perf_counter() - started
    for _ in range(WARMUP_BATCHES - 1):
        next(batches)
    started = time.perf_counter()
    count = sum(1 for _ in batches)
    return count * batch / (time.perf_counter() - started), first


def native_epochs(loader: Loader) -> Epoch:
    epoch = -1

    def run() -> Iterator[Any]:
        nonlocal epoch
        epoch += 1
        loader.set_epoch(epoch)
        return iter(loader)

    return run


def entropy_rate(data: Dataset, image_size: int, images: int) -> float:
    """Returns images/s of decoding only the Huffman codes that each crop depends on, on one thread."""
    from imgtool.pipelines.codec import _native

    with open_loader(data, "train", batch_size=images, image_size=image_size, num_workers=1) as loader:
        request = next(loader._requests(0))
        crops = request.crops[:, :4].tolist()
        stored_images = [bytes(loader.samples.data(sample)) for sample in request.samples.tolist()]
    settle()
    started = time.perf_counter()
    for stored, crop in zip(stored_images, crops, strict=True):
        _native.read_coefficients(stored, *crop)
    return len(crops) / (time.perf_counter() - started)


@click.command(help=__doc__)
@click.option("--src", type=SourcePath(), help="ILSVRC2012, or another source with a train split.")
@click.option("--data", type=SourcePath(), help="Your prepared data set, instead of --src.")
@click.option("--images", default=500, show_default=True, type=click.IntRange(1), help="Images to take from --src.")
@click.option(
    "--repeat", default=12, show_default=True, type=click.IntRange(1), help="Copies of each image in the data set."
)
@click.option(
    "--threads",
    default="1,2",
    show_default=True,
    type=CommaList(click.IntRange(1)),
    help="Numbers of threads (or worker processes), separated by commas.",
)
@click.option("--batch", default=256, show_default=True, type=click.IntRange(1), help="Samples per batch.")
@click.option("--imgsz", default=224, show_default=True, type=click.IntRange(32), help="Side of the crops in pixels.")
@click.option(
    "--rounds",
    default=5,
    show_default=True,
    type=click.IntRange(1),
    help="Epochs to take medians of.",
)
@click.option("--size", default="n", show_default=True, type=SIZES, help="Size of the model to feed, for --data.")
@click.option(
    "--seconds",
    default=10.0,
    show_default=True,
    type=FiniteRange(0, min_open=True),
    help="Seconds per measurement, for --data.",
)
@json_option
@plot_option("the rates")
@rehearsal(src=DRAWN, images=40, repeat=1, threads="1", batch=4, imgsz=32, rounds=1, seconds=0.1)
def main(
    src: str | None,
    data: str | None,
    images: int,
    repeat: int,
    threads: tuple[int, ...],
    batch: int,
    imgsz: int,
    rounds: int,
    size: str,
    seconds: float,
    json_path: Path | None,
    plot_path: Path | None,
    rehearse: bool,
) -> None:
    if rehearse and data is not None:
        src = None  # instead of the synthetic source
    if (src is None) == (data is None):
        raise click.UsageError("give either --src (the claim) or --data (your data set)")
    if data is not None:
        from imgtool.bench.loader_bottleneck import find_bottleneck

        if plot_path:
            raise click.UsageError("--plot draws the rates of all loaders: use it with --src")
        result = find_bottleneck(Dataset(data), size, imgsz, batch, seconds)
    else:
        result = compare(str(src), images, repeat, threads, batch, imgsz, rounds)
        show(result)
        if plot_path:
            draw(result, plot_path)
    result["rehearsal"] = rehearse
    write_json(json_path, result)


def compare(
    src: str, images: int, repeat: int, threads: Sequence[int], batch: int, imgsz: int, rounds: int
) -> dict[str, Any]:
    rates: dict[str, list[float]] = {}
    first: dict[str, list[float]] = {}
    sizes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stored = write_layouts(first_images(src, images), repeat, folder)
        check_batch(stored, batch)
        for side in SIDES:
            sets = {}
            for store in STORES:
                prepare(folder, folder / f"{store}{side}", Settings(max_side=side, store=store))
                sets[store] = Dataset(folder / f"{store}{side}")
                sizes[f"{store} {side}"] = float(np.mean(sets[store].manifest("train")["bytes"]))
            peers.write_files(sets["jpeg"], folder / f"files{side}")
            epochs: dict[str, Epoch] = {}
            for count in threads:
                for store, data in sets.items():
                    name = "native" if store == "jpeg" else f"native {store}"
                    started = time.perf_counter()
                    loader = open_loader(
                        data, "train", batch_size=batch, image_size=imgsz, num_workers=count, drop_last=True
                    )
                    epochs[f"{name}|{side}|{count}"] = native_epochs(loader)
                    first[f"{name}|{side}|{count}"] = [time.perf_counter() - started]
                for peer in peers.PEERS:
                    started = time.perf_counter()
                    made = peer(folder / f"files{side}", batch, imgsz, count)
                    if isinstance(made, str):
                        if side == SIDES[0] and count == threads[0]:
                            click.echo(f"{peer.__name__}: not available: {made}")
                    else:
                        epochs[f"{peer.__name__}|{side}|{count}"] = made
                        first[f"{peer.__name__}|{side}|{count}"] = [time.perf_counter() - started]
            for number in range(rounds + 1):
                for name, epoch in epochs.items():
                    rate, seconds = rate_of(epoch, batch)
                    if number == 0:  # a round that compiles, starts processes and fills caches
                        first[name].append(seconds)
                    else:
                        rates.setdefault(name, []).append(rate)
                for store in ("jpeg", "jpeg-indexed") if number else ():
                    rates.setdefault(f"entropy {store}|{side}|1", []).append(
                        entropy_rate(sets[store], imgsz, min(stored, 256 * max(1, repeat // 2)))
                    )
    return {
        "bench": "loader",
        "machine": machine.describe(),
        "peers": versions(peers.PACKAGES),
        "images": stored,
        "batch": batch,
        "image_size": imgsz,
        "mean_bytes": sizes,
        "rates": rates,
        "first_batch_seconds": first,
    }


def show(result: dict[str, Any]) -> None:
    rates = {name: statistics.median(values) for name, values in result["rates"].items()}
    for name, rate in sorted(rates.items(), key=lambda item: (item[0].split("|")[1:], -item[1])):
        kind, side, threads = name.split("|")
        line = f"longer side {side}, {threads} thread{'s' if threads != '1' else ' '}  {kind:20} {rate:8,.0f} images/s"
        ours = rates.get(f"native|{side}|{threads}")  # the bound is measured on one thread, whatever --threads is
        if ours and "entropy" in kind:
            line += f"   native reaches {ours / rate:.0%} of it"
        elif ours and not kind.startswith("native"):
            line += f"   native is {ours / rate:5.2f} x as fast"
        elif threads != "1" and f"{kind}|{side}|1" in rates:
            line += f"   {rate / rates[f'{kind}|{side}|1']:.2f} x its rate on one thread"
        if name in result["first_batch_seconds"]:
            line += f"   set-up and first batch: {sum(result['first_batch_seconds'][name]):.2f} s"
        click.echo(line)


def draw(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rates = {name: statistics.median(values) for name, values in result["rates"].items() if "entropy" not in name}
    panels = sorted({tuple(name.split("|")[1:]) for name in rates}, key=lambda p: (-int(p[0]), int(p[1])))
    figure, axes = pyplot.subplots(len(panels), 1, figsize=(7, 1.9 * len(panels)), sharex=True, squeeze=False)
    for axis, (side, threads) in zip(axes[:, 0], panels, strict=True):
        bars = sorted((rate, n.split("|")[0]) for n, rate in rates.items() if n.endswith(f"|{side}|{threads}"))
        axis.barh([name for _, name in bars], [rate for rate, _ in bars])
        axis.set_title(f"longer side {side}, threads: {threads}", fontsize=9, loc="left")
    axes[-1, 0].set_xlabel("images/s")
    figure.tight_layout()
    figure.savefig(path)
