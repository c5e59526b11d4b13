"""``imgtool bench loader --data X``: can this machine feed that model, and what is the bottleneck?"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

import click
import numpy as np
import torch

from imgtool.bench import machine
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import open_loader
from imgtool.pipelines.loaders.samples import Samples
from imgtool.pipelines.threads import available_cpus


def find_bottleneck(data: Dataset, size: str, imgsz: int, batch: int, seconds: float) -> dict[str, Any]:
    """Measures reading alone, the native loader on all cores, and the model's training step; prints the slowest.

    Args:
        seconds: the time for each measurement.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cores = available_cpus()
    read, megabytes = read_rate(data, seconds)
    feed = load_rate(data, imgsz, batch, cores, seconds)
    step = step_rate(size, imgsz, batch if device == "cuda" else 16, device, data.num_classes, seconds)
    click.echo(f"reading the stored bytes in random order: {read:,.0f} images/s, {megabytes:,.0f} MB/s, one thread")
    click.echo(f"native loader, {cores} threads, crops at {imgsz}: {feed:,.0f} images/s")
    click.echo(f"model {size}, training step on {device}: {step:,.0f} images/s")
    if feed >= 1.1 * step:
        bottleneck = f"the model: the loader could feed {feed / step:.1f} of them"
    elif read < 1.2 * feed:
        bottleneck = "the disk: the images are not in the page cache, and reading them is no faster than decoding them"
    else:
        bottleneck = (
            f"decoding: feeding the model would take {step / feed:.1f} times the cores; prepare with a smaller "
            "--max-side, --store jpeg-indexed or --store raw to make each image cheaper"
        )
    click.echo(f"the bottleneck is {bottleneck}")
    return {
        "bench": "loader --data",
        "machine": f"{machine.describe()}, {device}",
        "read": read,
        "load": feed,
        "step": step,
    }


def read_rate(data: Dataset, seconds: float) -> tuple[float, float]:
    """Returns images/s and MB/s of reading every memory page of the stored bytes, in random order."""
    samples = Samples(data, "train")
    order = np.random.default_rng().permutation(len(samples))
    total, count, started = 0, 0, time.perf_counter()
    for sample in order.tolist():
        stored = samples.data(sample)
        sum(stored[:: os.sysconf("SC_PAGESIZE")])
        total, count = total + len(stored), count + 1
        if time.perf_counter() - started > seconds:
            break
    took = time.perf_counter() - started
    return count / took, total / took / 1e6


def load_rate(data: Dataset, imgsz: int, batch: int, threads: int, seconds: float) -> float:
    """Returns images/s of the native loader."""
    count = 0
    batch = min(batch, data.num_samples("train"))
    with open_loader(data, "train", batch_size=batch, image_size=imgsz, num_workers=threads, drop_last=True) as loader:
        next(iter(loader))
        started = time.perf_counter()
        for epoch in range(1_000_000):
            loader.set_epoch(epoch + 1)
            for images, _ in loader:
                count += len(images)
                if time.perf_counter() - started > seconds:
                    return count / (time.perf_counter() - started)
    raise AssertionError("never reached")


def step_rate(size: str, imgsz: int, batch: int, device: str, classes: int, seconds: float) -> float:
    """Returns images/s of forward pass, backward pass and update on a batch in memory."""
    from imgtool.training.models import yolov8

    model = yolov8.build(size, classes).to(device).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, fused=True)
    images = torch.rand(batch, 3, imgsz, imgsz, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(classes, (batch,), device=device)
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return batch / statistics.median(times[1:])
