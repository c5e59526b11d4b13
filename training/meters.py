"""What the loop measures of itself: an epoch's loss, rate and data wait; a run's progress."""

import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from imgtool.training.evaluate import Batches, Metrics
from imgtool.training.recipes import Recipe
from imgtool.wordnet.errors import TrainingError


class Meter:
    """Loss, rate and data wait of one epoch's training."""

    def __init__(self, device: torch.device) -> None:
        self.unread = torch.zeros((), device=device)  # sum of the losses since the last read
        self.loss_sum = 0.0  # of the losses read
        self.steps = self.steps_read = self.images = 0
        self.waited = 0.0
        self.seconds = 0.0
        self.started = time.perf_counter()

    def watch(self, loader: Batches) -> Iterator[tuple[Tensor, Tensor]]:
        """The loader's batches, with the time spent on waiting for each."""
        batches = iter(loader)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def count(self, loss: Tensor, images: int) -> None:
        self.unread += loss
        self.steps += 1
        self.images += images

    def read(self, where: str) -> None:
        """Waits for the device and takes the losses over. Raises TrainingError if one was not a number."""
        loss = self.unread.item()
        if not math.isfinite(loss):
            raise TrainingError(
                f"training has diverged: the loss became {loss} between steps {self.steps_read + 1} and {self.steps} "
                f"{where}; lower lr or lengthen warmup_epochs"
            )
        self.loss_sum += loss
        self.unread.zero_()
        self.steps_read = self.steps
        self.seconds = time.perf_counter() - self.started

    @property
    def mean_loss(self) -> float:
        return self.loss_sum / max(self.steps_read, 1)

    @property
    def images_per_second(self) -> float:
        return self.images / max(self.seconds, 1e-9)

    @property
    def data_wait(self) -> float:
        """Fraction of the time, 0..1, that the loop stood waiting for the loader."""
        return self.waited / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        return f"loss {self.mean_loss:.3f}  {self.images_per_second:,.0f} images/s  data wait {self.data_wait:.0%}"


class Progress:
    """How far a run has come: epochs done, seconds over all its sittings, best metrics, and what is left."""

    def __init__(self, recipe: Recipe) -> None:
        # an epoch's work goes with its pixels, so that the ETA knows of the larger images to come
        self.work = [recipe.train_size_at(epoch) ** 2 for epoch in range(recipe.epochs)]
        self.epochs = 0
        self.best: Metrics | None = None
        self.earlier_seconds = 0.0
        self.start()

    def start(self) -> None:
        self.started, self.first_epoch = time.perf_counter(), self.epochs

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

    def eta(self, epochs: int, fraction: float = 0.0) -> str:
        """h:mm:ss to the end, after this many epochs and a fraction of the next, at the pace of this sitting."""
        part = fraction * self.work[epochs] if fraction else 0.0
        done = sum(self.work[self.first_epoch : epochs]) + part
        left = sum(self.work[epochs:]) - part
        seconds = round((time.perf_counter() - self.started) * left / max(done, 1e-9))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
