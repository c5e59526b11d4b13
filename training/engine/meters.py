"""What the loop measures: loss, images/s and data wait of an epoch; progress of a run."""

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

# Dense bfloat16 (before Ampere: float16) peak rates in FLOP/s, from the manufacturers' data sheets
PEAK_FLOPS = {
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
TRAINING_PASSES = 3  # forward, backward for the inputs and for the weights: equally many operations each


class Meter:
    """Loss, images/s and data wait of one training epoch. ``flops`` are those of one image's forward pass.

    Each process counts its own images; `read` averages the loss over all processes.
    """

    def __init__(self, device: torch.device, world: World | None = None, flops: int = 0, log_every: int = 50) -> None:
        self.device, self.world, self.flops = device, world or World(), flops
        self.unread = torch.zeros(log_every, device=device)  # losses since the last read
        self.loss_sum = 0.0  # of the losses that were read
        self.steps = self.steps_read = self.images = self.bad_steps = 0
        self.waited = self.earlier_seconds = self.seconds = 0.0
        self.started = time.perf_counter()

    def timed(self, loader: Batches, accumulate: int = 1) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Yields lists of ``accumulate`` batches, one list per step, and adds up the time spent waiting for them. An
        incomplete list at the end is dropped."""
        iterator: Any = iter(loader)
        with closing(iterator):
            while True:
                started = time.perf_counter()
                batches = [batch for _, batch in zip(range(accumulate), iterator, strict=False)]
                self.waited += time.perf_counter() - started
                if len(batches) < accumulate:
                    return
                yield batches

    def count(self, loss: Tensor, images: int) -> None:
        """Counts a step, without reading the loss."""
        self.unread[self.steps - self.steps_read] = loss
        self.steps += 1
        self.images += images

    def skip(self) -> None:
        """Counts a step that was skipped because of a NaN or infinite gradient."""
        self.count(torch.zeros((), device=self.device), 0)
        self.bad_steps += 1

    def read(self, epoch: int) -> None:
        """Waits for the device and reads the losses since the last read. Raises TrainingError, naming the step and the
        1-based ``epoch``, for a NaN or infinite loss."""
        losses = self.world.sum(self.unread[: self.steps - self.steps_read] / self.world.size)
        if not losses.isfinite().all().item():
            first = int(losses.isfinite().int().argmin())
            raise TrainingError(
                f"training diverged: the loss is {losses[first].item()} in step {self.steps_read + first + 1} of epoch "
                f"{epoch}; lower lr, increase warmup_epochs, set clip, or skip such steps with --on-nan skip"
            )
        self.loss_sum += sum(losses.tolist())
        self.unread.zero_()
        self.steps_read = self.steps
        self.seconds = self.earlier_seconds + time.perf_counter() - self.started

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of an unfinished epoch, so that its row in results.csv will cover the whole epoch."""
        names = ("steps", "steps_read", "images", "bad_steps", "loss_sum", "waited")
        seconds = self.earlier_seconds + time.perf_counter() - self.started
        return {name: getattr(self, name) for name in names} | {"unread": self.unread.tolist(), "seconds": seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues the epoch whose `state_dict` this is."""
        state = dict(state)
        losses = torch.tensor(state.pop("unread"), device=self.device)
        self.earlier_seconds, self.started = state.pop("seconds"), time.perf_counter()
        for name, value in state.items():
            setattr(self, name, value)
        unread = self.steps - self.steps_read
        self.unread[:unread] = losses[:unread]

    @property
    def mean_loss(self) -> float:
        """Over the steps that were read and not skipped."""
        return self.loss_sum / max(self.steps_read - self.bad_steps, 1)

    @property
    def images_per_second(self) -> float:
        """Images per second of all processes together."""
        return self.images * self.world.size / max(self.seconds, 1e-9)

    @property
    def data_wait(self) -> float:
        """Fraction of the time, 0..1, that this process waited for the loader."""
        return self.waited / max(self.seconds, 1e-9)

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation: the model's FLOP/s as a fraction, 0..1, of the device's peak; None if the peak is
        unknown."""
        peak = peak_flops(self.device)
        rate = self.images / max(self.seconds, 1e-9)
        return rate * TRAINING_PASSES * self.flops / peak if peak and self.flops else None

    def __str__(self) -> str:
        mfu = f"  MFU {self.mfu:.0%}" if self.mfu is not None else ""
        bad = f"  {self.bad_steps} steps skipped" if self.bad_steps else ""
        return (
            f"loss {self.mean_loss:.3f}{bad}  {self.images_per_second:,.0f} images/s{mfu}  "
            f"data wait {self.data_wait:.0%}  memory {memory(self.device) / 1e9:.1f} GB"
        )


def peak_flops(device: torch.device) -> float | None:
    """Returns the device's peak FLOP/s in the type that training uses; None for a device that is not in PEAK_FLOPS."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAK_FLOPS.items() if key in name), None)


def memory(device: torch.device) -> float:
    """Returns peak memory in bytes: of tensors on a GPU, of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Progress:
    """Epochs done, seconds in all sessions, the best metrics, and the time left. A resumed run begins a new session."""

    def __init__(self, recipe: Recipe) -> None:
        # work is proportional to the pixels per image, so that the ETA accounts for larger images in later epochs
        self.work = [recipe.train_size_at(epoch) ** 2 for epoch in range(recipe.epochs)]
        self.epochs = 0
        self.best: Metrics | None = None
        self.earlier_seconds = 0.0
        self.start()

    def start(self, fraction: float = 0.0) -> None:
        """Begins a session at ``fraction`` of the epoch after the last finished one."""
        self.started, self.done_before = time.perf_counter(), self._done(self.epochs, fraction)

    @property
    def seconds(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self.started

    def finish_epoch(self, metrics: Metrics) -> bool:
        """Counts the epoch; returns whether its top-1 is at least the highest before."""
        self.epochs += 1
        is_best = self.best is None or metrics.top1 >= self.best.top1
        if is_best:
            self.best = metrics
        return is_best

    def _done(self, epochs: int, fraction: float) -> float:
        return sum(self.work[:epochs]) + (fraction * self.work[epochs] if fraction else 0.0)

    def eta(self, epochs: int, fraction: float = 0.0) -> str:
        """The time left as h:mm:ss, after ``epochs`` epochs and a fraction of the next, at the session's pace."""
        done = self._done(epochs, fraction)
        left = sum(self.work) - done
        seconds = round((time.perf_counter() - self.started) * left / max(done - self.done_before, 1e-9))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
