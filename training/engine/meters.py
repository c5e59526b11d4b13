"""What the loop measures of itself: an epoch's loss, rate and data wait; a run's progress."""

import resource
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from imgtool.training.evaluation.evaluate import Batches, Metrics
from imgtool.training.parallel.distributed import World
from imgtool.training.recipes import Recipe
from imgtool.wordnet.errors import TrainingError

# Dense bfloat16 (or float16, before Ampere) multiply-accumulate rates by their makers' data sheets, FLOP/s
PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "V100": 125e12,
    "T4": 65e12,
}
TRAINING_PASSES = 3  # forward, and backward by inputs and by weights: each as many operations as the first


class Meter:
    """Loss, rate and data wait of one epoch's training on this process; ``read`` makes them those of all."""

    def __init__(self, device: torch.device, world: World | None = None, flops: int = 0, log_every: int = 50) -> None:
        self.device, self.world, self.flops = device, world or World(), flops
        self.unread = torch.zeros(log_every, device=device)  # the losses since the last read
        self.loss_sum = 0.0  # of the losses read
        self.steps = self.steps_read = self.images = self.bad_steps = 0
        self.waited = self.earlier_seconds = self.seconds = 0.0
        self.started = time.perf_counter()

    def watch(self, loader: Batches, parts: int = 1) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """The loader's batches, ``parts`` of them a step, with the time spent on waiting for each. What is left at the
        end and makes no whole step is not used."""
        iterator: Any = iter(loader)
        with closing(iterator):
            while True:
                asked = time.perf_counter()
                group = [batch for _, batch in zip(range(parts), iterator, strict=False)]
                self.waited += time.perf_counter() - asked
                if len(group) < parts:
                    return
                yield group

    def count(self, loss: Tensor, images: int) -> None:
        self.unread[self.steps - self.steps_read] = loss
        self.steps += 1
        self.images += images

    def skip(self) -> None:
        """A step whose loss was no number, and which was left out."""
        self.count(torch.zeros((), device=self.device), 0)
        self.bad_steps += 1

    def read(self, where: str) -> None:
        """Waits for the device and takes the losses over. Raises TrainingError, with the step, if one was no number."""
        losses = self.world.sum(self.unread[: self.steps - self.steps_read] / self.world.size)
        if not losses.isfinite().all().item():
            first = int(losses.isfinite().int().argmin())
            raise TrainingError(
                f"training has diverged: the loss became {losses[first].item()} in step {self.steps_read + first + 1} "
                f"{where}; lower lr, lengthen warmup_epochs, set clip, or leave such steps out with --on-nan skip"
            )
        self.loss_sum += sum(losses.tolist())
        self.unread.zero_()
        self.steps_read = self.steps
        self.seconds = self.earlier_seconds + time.perf_counter() - self.started

    def state_dict(self) -> dict[str, Any]:
        """What an epoch that is resumed in its middle needs, so that its line in results.csv is of all of it."""
        names = ("steps", "steps_read", "images", "bad_steps", "loss_sum", "waited")
        seconds = self.earlier_seconds + time.perf_counter() - self.started
        return {name: getattr(self, name) for name in names} | {"unread": self.unread.tolist(), "seconds": seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        state = dict(state)
        losses = torch.tensor(state.pop("unread"), device=self.device)
        self.earlier_seconds, self.started = state.pop("seconds"), time.perf_counter()
        for name, value in state.items():
            setattr(self, name, value)
        left = self.steps - self.steps_read
        self.unread[:left] = losses[:left]

    @property
    def mean_loss(self) -> float:
        return self.loss_sum / max(self.steps_read - self.bad_steps, 1)

    @property
    def images_per_second(self) -> float:
        """Over all processes."""
        return self.images * self.world.size / max(self.seconds, 1e-9)

    @property
    def data_wait(self) -> float:
        """Fraction of the time, 0..1, that this process's loop stood waiting for the loader."""
        return self.waited / max(self.seconds, 1e-9)

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation: the fraction of the device's peak, 0..1, that the model's own operations take; None
        where no peak is known."""
        peak = peak_flops(self.device)
        rate = self.images / max(self.seconds, 1e-9)
        return rate * TRAINING_PASSES * self.flops / peak if peak and self.flops else None

    def __str__(self) -> str:
        mfu = f"  MFU {self.mfu:.0%}" if self.mfu is not None else ""
        bad = f"  {self.bad_steps} steps left out" if self.bad_steps else ""
        return (
            f"loss {self.mean_loss:.3f}{bad}  {self.images_per_second:,.0f} images/s{mfu}  "
            f"data wait {self.data_wait:.0%}  memory {memory(self.device) / 1e9:.1f} GB"
        )


def peak_flops(device: torch.device) -> float | None:
    """FLOP/s of the device in the type that training uses there; None for one that is not in the table."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAKS.items() if key in name), None)


def memory(device: torch.device) -> float:
    """The most bytes held so far: on a GPU by tensors, on the CPU by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Progress:
    """How far a run has come: epochs done, seconds over all its sittings, best metrics, and what is left."""

    def __init__(self, recipe: Recipe) -> None:
        # an epoch's work goes with its pixels, so that the ETA knows of the larger images to come
        self.work = [recipe.train_size_at(epoch) ** 2 for epoch in range(recipe.epochs)]
        self.epochs = 0
        self.best: Metrics | None = None
        self.earlier_seconds = 0.0
        self.start()

    def start(self, fraction: float = 0.0) -> None:
        """This sitting begins here, ``fraction`` of an epoch behind the last whole one."""
        self.started, self.done_before = time.perf_counter(), self._done(self.epochs, fraction)

    @property
    def seconds(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self.started

    def finish_epoch(self, metrics: Metrics) -> bool:
        """Whether this epoch is the best so far."""
        self.epochs += 1
        is_best = self.best is None or metrics.top1 >= self.best.top1
        if is_best:
            self.best = metrics
        return is_best

    def _done(self, epochs: int, fraction: float) -> float:
        return sum(self.work[:epochs]) + (fraction * self.work[epochs] if fraction else 0.0)

    def eta(self, epochs: int, fraction: float = 0.0) -> str:
        """h:mm:ss to the end, after this many epochs and a fraction of the next, at the pace of this sitting."""
        done = self._done(epochs, fraction)
        left = sum(self.work) - done
        seconds = round((time.perf_counter() - self.started) * left / max(done - self.done_before, 1e-9))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
