"""The overhead of the training loop: it and a minimal loop run the same steps on batches in memory.

"bare" is the minimal loop: forward, loss, backward, optimiser step and zero_grad, with the same model, optimiser and
memory format. "bare + EMA" also averages the weights, which belongs to the recipe and is not overhead. "loop" is
imgtool.training.engine.loop with its learning-rate schedule, meters, checks and EMA, but without validation and
checkpoint; the rate is that of its meter.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from imgtool.pipelines.codec.transform import to_float
from imgtool.training import recipes
from imgtool.training.engine import loop
from imgtool.training.engine.ema import EMA
from imgtool.training.engine.setup import Setup
from imgtool.training.engine.step import make_optimizer
from imgtool.training.models import losses, yolov8
from imgtool.training.recipes import Recipe
from imgtool.training.runs.run import Run

CPU = torch.device("cpu")
DISTINCT_BATCHES = 4  # the loops cycle through these
KINDS = ("bare", "bare + EMA", "loop")


class MemoryLoader:
    """A loader of batches that are in memory."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]], count: int, image_size: int) -> None:
        self.batches, self.count, self.image_size = batches, count, image_size

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.batches[i % len(self.batches)] for i in range(self.count))

    def set_epoch(self, epoch: int) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def make_batches(batch: int, imgsz: int, num_classes: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    out = []
    for _ in range(DISTINCT_BATCHES):
        images = torch.randint(0, 256, (batch, 3, imgsz, imgsz), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, num_classes, (batch,), generator=generator)
        out.append((images.contiguous(memory_format=torch.channels_last), labels))
    return out


def bare_rate(
    recipe: Recipe, num_classes: int, batches: list[tuple[Tensor, Tensor]], steps: int, averaged: bool
) -> float:
    """Returns images/s of the minimal loop over ``steps`` steps, with EMA if ``averaged``."""
    torch.manual_seed(0)
    model = yolov8.build("n", num_classes).to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(model, recipe, CPU)
    ema = EMA(model, recipe.ema_decay(steps))
    started = time.perf_counter()
    for i in range(steps):
        images, labels = batches[i % len(batches)]
        loss = F.cross_entropy(model(to_float(images)), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if averaged:
            ema.update(model)
    return steps * recipe.batch / (time.perf_counter() - started)


def loop_rate(recipe: Recipe, num_classes: int, batches: list[tuple[Tensor, Tensor]], steps: int) -> float:
    """Returns images/s of one epoch of ``steps`` steps in the training loop, by its own meter."""
    rate = 0.0

    class UnsavedRun(Run):
        """A run that takes the rate from the results and does not write them."""

        def add_result(self, row: Any) -> None:
            nonlocal rate
            rate = float(row["images_per_second"])

    torch.manual_seed(0)
    model = yolov8.build("n", num_classes)
    wnids = [f"n{number:08d}" for number in range(num_classes)]
    with tempfile.TemporaryDirectory() as folder:
        loss = losses.from_spec("ce", wnids)
        train_loader, val_loader = MemoryLoader(batches, steps, recipe.imgsz), MemoryLoader(batches, 1, recipe.imgsz)
        setup = Setup(model, "n", recipe, loss, wnids, wnids, train_loader, val_loader)
        loop.train(setup, UnsavedRun.create(Path(folder) / "run", quiet=True), CPU)
    return rate


def measure(rounds: int, steps: int, batch: int, imgsz: int, num_classes: int = 100) -> dict[str, list[float]]:
    """Measures images/s by kind and round. The kinds take turns; a first round is not counted."""
    recipe = recipes.load("n").override(epochs=1, batch=batch, imgsz=imgsz)
    batches = make_batches(batch, imgsz, num_classes)
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds + 1):
        count = steps if number else min(steps, 5)  # in the first round, libraries choose their kernels
        order = KINDS[number % 3 :] + KINDS[: number % 3]  # so that none always runs after the same one
        for kind in order:
            if kind == "loop":
                rate = loop_rate(recipe, num_classes, batches, count)
            else:
                rate = bare_rate(recipe, num_classes, batches, count, averaged=kind != "bare")
            if number:
                rates[kind].append(round(rate, 1))
    return rates
