"""Claim: an exported model answers at least as fast as Ultralytics' own export of the same weights.

\b
    imgtool bench inference  # latency and throughput, every runtime here
    imgtool bench inference --int8 --weights runs/train --data data/x  # what 8-bit integers cost and bring

The five sizes with 1000 classes at 224 pixels, random weights, the same in all: our .onnx for any batch and the .onnx
that Ultralytics' export makes by its defaults for this very batch, both in onnxruntime with the same threads and
options; OpenVINO, TorchScript, torch (fused, channels_last) and torch.compile beside them. All must give the same
probabilities first. They run turn by turn, each after a pause in which the other's threads come to rest; a round's
figure is the median of its runs, and the medians of the rounds are compared. On a GPU: torch, torch.compile, a CUDA
graph, and TensorRT where it is installed, in float16.

--int8: the model of --weights as ONNX in float32 and quantised, its ranges measured on --calibrate: top-1 on --data,
latency and throughput of both.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from imgtool.bench import inference_peers as peers
from imgtool.bench import machine
from imgtool.bench.inference_peers import OURS, THEIRS, Runner
from imgtool.bench.options import SIZES, CommaList, SourcePath, json_option, rehearsal, versions, write_json
from imgtool.pipelines.threads import available_cpus

PACKAGES = ("imgtool", "torch", "onnxruntime", "openvino", "ultralytics", "onnxslim", "tensorrt")
REST = 0.1  # seconds: a pool of threads spins for a while after its last work
SECONDS = 0.4  # of runs in a round, at least three of them


@click.command(help=__doc__)
@click.option(
    "--sizes", default="n,s,m,l,x", show_default=True, type=CommaList(SIZES), help="Of the model, separated by commas."
)
@click.option(
    "--batches",
    default="1,32",
    show_default=True,
    type=CommaList(click.IntRange(1)),
    help="Images at a time, separated by commas.",
)
@click.option("--imgsz", default=224, show_default=True, type=click.IntRange(32), help="Side of the images in pixels.")
@click.option("--threads", type=click.IntRange(1), help="Of a CPU. [the cores]")
@click.option(
    "--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]), help="What computes: cpu or cuda."
)
@click.option(
    "--runtimes",
    type=CommaList(click.Choice(sorted({*peers.CPU_KINDS, *peers.CUDA_KINDS}))),
    help=f"Separated by commas; cpu: {', '.join(peers.CPU_KINDS)}; cuda: {', '.join(peers.CUDA_KINDS)}. "
    "[all that are installed]",
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Rounds that a median is of.")
@click.option("--int8", is_flag=True, help="Compare with 8-bit integers instead; needs --weights and --data.")
@click.option("--weights", help="A checkpoint or run, for --int8.")
@click.option("--data", type=SourcePath(), help="Its validation data, for --int8.")
@click.option("--calibrate", type=SourcePath(), help="Data set to calibrate on, for --int8. [--data]")
@json_option
@rehearsal(sizes="n", batches="2", imgsz=32, threads=1, rounds=1)
def main(
    sizes: tuple[str, ...],
    batches: tuple[int, ...],
    imgsz: int,
    threads: int | None,
    device: str,
    runtimes: tuple[str, ...] | None,
    rounds: int,
    int8: bool,
    weights: str | None,
    data: str | None,
    calibrate: str | None,
    json_path: Path | None,
    rehearse: bool,
) -> None:
    import torch

    if int8 and (weights is None or data is None):
        raise click.UsageError("--int8 needs --weights and --data")
    if int8 and (runtimes or device != "cpu"):
        raise click.UsageError("--int8 is measured in onnxruntime on a CPU: it goes without --runtimes and --device")
    if not int8 and (weights or data or calibrate):
        raise click.UsageError("--weights, --data and --calibrate go with --int8")
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("torch sees no CUDA GPU here")
    kinds = [] if int8 else peers.available(device, runtimes)
    threads = threads or available_cpus()
    torch.set_num_threads(threads)
    result: dict[str, Any] = {
        "bench": "inference",
        "rehearsal": rehearse,
        "machine": machine.describe(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(PACKAGES),
        "settings": {"imgsz": imgsz, "threads": threads, "rounds": rounds},
    }
    with tempfile.TemporaryDirectory() as temporary:
        if int8:
            assert weights and data
            result["int8"] = quantised(weights, data, calibrate or data, Path(temporary), batches, threads, rounds)
            show_int8(result["int8"])
        else:
            result["timings"] = []
            for size in sizes:
                for row in measure(size, Path(temporary), batches, imgsz, threads, device, kinds, rounds):
                    result["timings"].append(row)
                    show(row)
                    write_json(json_path, result)  # what is measured is kept, whatever happens to the rest
    write_json(json_path, result)


def one_round(run: Runner) -> float:
    """Milliseconds of the median run."""
    time.sleep(REST)
    run()
    took: list[float] = []
    until = time.perf_counter() + SECONDS
    while len(took) < 3 or time.perf_counter() < until:
        started = time.perf_counter()
        run()
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1e3


def timed(runners: dict[str, Runner], rounds: int) -> dict[str, list[float]]:
    """Milliseconds a batch by kind, a round each, turn by turn; none is always behind the same other."""
    milliseconds: dict[str, list[float]] = {kind: [] for kind in runners}
    kinds = list(runners)
    for number in range(rounds):
        at = number % len(kinds)
        for kind in kinds[at:] + kinds[:at]:
            milliseconds[kind].append(round(one_round(runners[kind]), 3))
    return milliseconds


def measure(
    size: str,
    folder: Path,
    batches: Sequence[int],
    imgsz: int,
    threads: int,
    device: str,
    kinds: Sequence[str],
    rounds: int,
) -> Iterator[dict[str, Any]]:
    """A row for each batch: size, batch, milliseconds a batch by runtime and round."""
    from imgtool.training.classifier import Classifier

    subject = Classifier(peers.make_checkpoint(size, folder, imgsz))
    for batch in batches:
        if device == "cuda":
            runners = peers.cuda_runners(subject, folder, batch, imgsz, kinds)
        else:
            runners = peers.cpu_runners(subject, folder, batch, imgsz, threads, kinds)
            peers.agree(runners)
        yield {"size": size, "batch": batch, "milliseconds": timed(runners, rounds)}


def medians(row: dict[str, Any]) -> dict[str, float]:
    return {kind: statistics.median(values) for kind, values in row["milliseconds"].items()}


def show(row: dict[str, Any]) -> None:
    found = medians(row)
    parts = [f"{kind} {ms:.2f} ms" for kind, ms in found.items()]
    if row["batch"] > 1:
        parts = [f"{kind} {row['batch'] / ms * 1e3:,.0f} img/s" for kind, ms in found.items()]
    if OURS in found and THEIRS in found:
        parts.append(f"ours takes {found[OURS] / found[THEIRS]:.3f} of Ultralytics' (aim: .9, at most 1)")
    click.echo(f"{row['size']}, batch {row['batch']:2}: {', '.join(parts)}")


def quantised(
    weights: str, data: str, calibrate: str, folder: Path, batches: Sequence[int], threads: int, rounds: int
) -> dict[str, Any]:
    """Top-1 on the validation data and milliseconds a batch, of the model in float32 and in 8-bit integers."""
    import numpy as np

    from imgtool.training.classifier import Classifier

    subject = Classifier(weights)
    files = {"float32": folder / "a.onnx", "int8": folder / "a-int8.onnx"}
    subject.export("onnx", files["float32"], data=data)
    used = subject.export("onnx", files["int8"], int8=True, calibrate=calibrate, data=data).calibration
    out: dict[str, Any] = {"size": subject.size, "imgsz": subject.imgsz, "classes": len(subject.wnids)}
    out |= {"calibrated_on": used, "bytes": {kind: path.stat().st_size for kind, path in files.items()}}
    for kind, path in files.items():
        metrics = Classifier(path, threads=threads).val(data)
        out[kind] = {"top1": metrics.top1, "top5": metrics.top5, "images": metrics.images}
    out["timings"] = []
    for batch in batches:
        images = np.random.default_rng(0).random((batch, 3, subject.imgsz, subject.imgsz), np.float32)
        runners = {kind: peers.session_runner(path, threads, images) for kind, path in files.items()}
        out["timings"].append({"size": subject.size, "batch": batch, "milliseconds": timed(runners, rounds)})
    return out


def show_int8(result: dict[str, Any]) -> None:
    plain, small = result["float32"], result["int8"]
    click.echo(
        f"{result['size']} at {result['imgsz']}, calibrated on {result['calibrated_on']} images: top-1 "
        f"{plain['top1']:.2%} in float32, {small['top1']:.2%} in int8 on {plain['images']:,} images"
    )
    for row in result["timings"]:
        found = medians(row)
        click.echo(
            f"batch {row['batch']:2}: {found['float32']:.2f} ms and {found['int8']:.2f} ms, "
            f"{found['float32'] / found['int8']:.2f} x as fast"
        )
