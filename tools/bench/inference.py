"""Claim: an exported model is at least as fast as Ultralytics' export of the same weights.

\b
    imgtool bench inference  # latency and throughput in every installed runtime
    imgtool bench inference --int8 --weights runs/train --data data/x  # accuracy and speed in 8-bit integers

Compares the five sizes with 1000 classes at 224 pixels and the same random weights: imgtool's .onnx, which takes any
batch size, and the .onnx that Ultralytics' export makes by default for a fixed batch size, both in onnxruntime with the
same threads and options. OpenVINO, TorchScript, torch (fused, channels_last) and torch.compile are measured, too.
First, all must give the same probabilities. The runtimes take turns, with a pause in between until the threads of the
previous one are idle. A round measures the median of its runs; the medians over the rounds are compared. On a GPU, the
runtimes are torch, torch.compile, a CUDA graph, and TensorRT if it is installed, in float16.

--int8 compares the model of --weights as ONNX in float32 and quantised, with ranges calibrated on --calibrate: top-1 on
--data, latency and throughput.
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
PAUSE = 0.1  # seconds, because a thread pool spins for a while after its last work
ROUND_SECONDS = 0.4  # of runs per round, with at least three runs


@click.command(help=__doc__)
@click.option(
    "--sizes", default="n,s,m,l,x", show_default=True, type=CommaList(SIZES), help="Model sizes, separated by commas."
)
@click.option(
    "--batches",
    default="1,32",
    show_default=True,
    type=CommaList(click.IntRange(1)),
    help="Batch sizes, separated by commas.",
)
@click.option("--imgsz", default=224, show_default=True, type=click.IntRange(32), help="Side of the images in pixels.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads. [number of cores]")
@click.option(
    "--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]), help="Device to compute on."
)
@click.option(
    "--runtimes",
    type=CommaList(click.Choice(sorted({*peers.CPU_KINDS, *peers.CUDA_KINDS}))),
    help=f"Runtimes, separated by commas; cpu: {', '.join(peers.CPU_KINDS)}; cuda: {', '.join(peers.CUDA_KINDS)}. "
    "[all that are installed]",
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Rounds to take medians of.")
@click.option("--int8", is_flag=True, help="Compare float32 with 8-bit integers; needs --weights and --data.")
@click.option("--weights", help="Checkpoint or run, for --int8.")
@click.option("--data", type=SourcePath(), help="Validation data, for --int8.")
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
        raise click.UsageError("--int8 is measured in onnxruntime on a CPU: do not give --runtimes or --device")
    if not int8 and (weights or data or calibrate):
        raise click.UsageError("--weights, --data and --calibrate need --int8")
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("torch finds no CUDA GPU")
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
                    write_json(json_path, result)  # keeps the measurements if a later one fails
    write_json(json_path, result)


def one_round(run: Runner) -> float:
    """Returns the median time of a run in milliseconds."""
    time.sleep(PAUSE)
    run()
    took: list[float] = []
    until = time.perf_counter() + ROUND_SECONDS
    while len(took) < 3 or time.perf_counter() < until:
        started = time.perf_counter()
        run()
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1e3


def timed(runners: dict[str, Runner], rounds: int) -> dict[str, list[float]]:
    """Measures milliseconds per batch, by kind and round. The kinds take turns, in an order that changes each round."""
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
    """Yields a row for each batch size: size, batch, milliseconds per batch by runtime and round."""
    from imgtool.training.classifier import Classifier

    subject = Classifier(peers.make_checkpoint(size, folder, imgsz))
    for batch in batches:
        if device == "cuda":
            runners = peers.cuda_runners(subject, folder, batch, imgsz, kinds)
        else:
            runners = peers.cpu_runners(subject, folder, batch, imgsz, threads, kinds)
            peers.check_same_output(runners)
        yield {"size": size, "batch": batch, "milliseconds": timed(runners, rounds)}


def medians(row: dict[str, Any]) -> dict[str, float]:
    """Returns the median milliseconds by runtime."""
    return {kind: statistics.median(values) for kind, values in row["milliseconds"].items()}


def show(row: dict[str, Any]) -> None:
    found = medians(row)
    parts = [f"{kind} {ms:.2f} ms" for kind, ms in found.items()]
    if row["batch"] > 1:
        parts = [f"{kind} {row['batch'] / ms * 1e3:,.0f} images/s" for kind, ms in found.items()]
    if OURS in found and THEIRS in found:
        parts.append(
            f"imgtool's takes {found[OURS] / found[THEIRS]:.3f} of the time of Ultralytics' (target: .9, at most 1)"
        )
    click.echo(f"{row['size']}, batch {row['batch']:2}: {', '.join(parts)}")


def quantised(
    weights: str, data: str, calibrate: str, folder: Path, batches: Sequence[int], threads: int, rounds: int
) -> dict[str, Any]:
    """Measures top-1 on the validation data and milliseconds per batch of the model in float32 and 8-bit integers."""
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
            f"batch {row['batch']:2}: float32 {found['float32']:.2f} ms, int8 {found['int8']:.2f} ms; "
            f"int8 is {found['float32'] / found['int8']:.2f} x as fast"
        )
