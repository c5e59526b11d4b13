"""What all loaders have in common: order, crops, position, device. A backend only turns requests into pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders.samples import Samples
from imgtool.pipelines.loaders.sampling import ORDERS, Augmentation, Request, batch_of, crops_for, epoch_order
from imgtool.wordnet.errors import ImageError, InputError

Batch = tuple[torch.Tensor, torch.Tensor]


class Loader(ABC):
    """Iterates over one epoch of a split: (images, labels) a batch.

    images: uint8 [N, 3, H, W], channels_last, on ``device``; labels: int64 [N], there too. ``image_size`` may be set
    between epochs. Order and crops are functions of (seed, epoch, sample). With an ``augmentation`` the order is
    shuffled; without, the samples come in stored order under the validation transform. Close it, or use it in a
    ``with``; iterating again after :meth:`close` is an error.
    """

    skipped = 0
    """Damaged samples left out of the batches so far (``on_error="skip"``)."""

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        *,
        batch_size: int,
        image_size: int,
        device: str | torch.device,
        seed: int,
        rank: int,
        world_size: int,
        num_workers: int,
        augmentation: Augmentation | None,
        drop_last: bool,
        order: str = "random",
        on_error: str = "raise",
    ) -> None:
        for name, value in (("batch_size", batch_size), ("image_size", image_size), ("num_workers", num_workers)):
            if value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        if not 0 <= rank < world_size:
            raise InputError(f"rank {rank} does not exist in a world of {world_size}")
        self.dataset, self.split = dataset, split
        self.batch_size, self.image_size = batch_size, image_size
        self.device = torch.device(device)
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.num_workers, self.augmentation, self.drop_last = num_workers, augmentation, drop_last
        if order not in ORDERS or on_error not in ("raise", "skip"):
            raise InputError(
                f"order {order!r}, on_error {on_error!r}: order is random or quasi, on_error raise or skip"
            )
        self.order, self.on_error = order, on_error
        self.samples = Samples(dataset, split)
        self._epoch = 0
        self._position = 0  # batches of this epoch handed out

    @abstractmethod
    def _produce(self, requests: Iterator[Request]) -> Generator[Batch]:
        """Makes the requested batches, in order, on the CPU (pinned where CUDA is the device)."""

    def _sound(self, request: Request, images: torch.Tensor, errors: Sequence[tuple[int, str]]) -> Batch:
        """A batch and its labels. ``errors``: which of its samples could not be decoded, and why; the first is raised
        as ImageError, or they are left out and counted."""
        labels = torch.from_numpy(self.samples.label[request.samples])
        if errors:
            self._fail(request, errors)
            kept = np.setdiff1d(np.arange(len(labels)), [i for i, _ in errors])
            images, labels = images[kept].contiguous(memory_format=torch.channels_last), labels[kept]
        return images, labels

    def _fail(self, request: Request, errors: Sequence[tuple[int, str]]) -> None:
        if self.on_error == "raise":
            i, message = errors[0]
            raise ImageError(f"{self.samples.name(int(request.samples[i]))}: {message}")
        self.skipped += len(errors)

    def __len__(self) -> int:
        """Batches an epoch, on this rank."""
        whole, rest = divmod(len(self.samples), self.batch_size * self.world_size)
        return whole + (rest > self.rank and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch the next iteration runs over; its order and crops follow from it."""
        if epoch != self._epoch:
            self._epoch, self._position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Epoch and batches handed out of it, and what makes them these batches."""
        return {"epoch": self._epoch, "batch": self._position, **self._identity()}

    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "global_batch": self.batch_size * self.world_size,
            "samples": len(self.samples),
            "order": self.order,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration goes on behind the last batch that was handed out, on any number of ranks of the same
        global batch. Raises InputError if the state is of other batches."""
        for name, value in self._identity().items():
            if state.get(name, value) != value:
                raise InputError(
                    f"the loader's state has {name} {state[name]}, this loader {value}: it cannot go on from it"
                )
        self._epoch, self._position = int(state["epoch"]), int(state["batch"])

    def __iter__(self) -> Iterator[Batch]:
        with closing(self._produce(self._requests(self._position))) as batches:
            for batch in on_device(batches, self.device):
                self._position += 1
                yield batch
        self._position = 0

    def _requests(self, start: int) -> Iterator[Request]:
        epoch, size, samples = self._epoch, self.image_size, self.samples
        order = epoch_order(samples.shard, self.seed, epoch, self.order if self.augmentation else "stored")
        for batch in range(start, len(self)):
            chosen = batch_of(order, batch, self.batch_size, self.rank, self.world_size)
            width, height = samples.width[chosen], samples.height[chosen]
            crops = crops_for(width, height, size, self.augmentation, self.seed, epoch, chosen)
            yield Request(chosen, crops, size)

    def close(self) -> None:  # noqa: B027 - a backend without threads has nothing to close
        """Frees threads and memory maps."""

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Each batch on the device. With CUDA the next is copied, on a stream of its own, while one is in use."""
    if device.type == "cpu":
        yield from batches
    elif device.type != "cuda":
        for images, labels in batches:
            yield images.to(device), labels.to(device)
    else:
        stream = torch.cuda.Stream(device)
        ahead: tuple[Batch, torch.cuda.Event] | None = None
        for images, labels in batches:
            with torch.cuda.stream(stream):
                copied = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
                done = stream.record_event()
            if ahead is not None:
                yield _arrived(*ahead)
            ahead = copied, done
        if ahead is not None:
            yield _arrived(*ahead)


def _arrived(batch: Batch, done: torch.cuda.Event) -> Batch:
    stream = torch.cuda.current_stream(batch[0].device)
    stream.wait_event(done)
    for tensor in batch:  # made on another stream: their memory must not be given away before this one is through
        tensor.record_stream(stream)
    return batch
