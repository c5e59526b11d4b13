"""The base class of all loaders: order, crops, position, device. A backend only turns requests into pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders.samples import Samples
from imgtool.pipelines.loaders.sampling import ORDERS, CropAndFlip, Request, batch_of, crops_for, epoch_order
from imgtool.wordnet.errors import ImageError, InputError

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images and labels."""


class Loader(ABC):
    """Iterates over one epoch of a split and yields batches (images, labels).

    images: uint8 [N, 3, H, W], channels_last; labels: int64 [N]; both on ``device``. ``image_size`` may be set between
    epochs. Order and crops are functions of (seed, epoch, sample). With an ``augmentation`` the order is shuffled;
    without one the samples come in stored order under the validation transform. Close the loader, or use it in a
    ``with`` statement; iterating after :meth:`close` is an error.
    """

    skipped = 0
    """The number of damaged samples that were left out of batches (``on_error="skip"``)."""

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
        augmentation: CropAndFlip | None,
        drop_last: bool,
        order: str = "random",
        on_error: str = "raise",
    ) -> None:
        for name, value in (("batch_size", batch_size), ("image_size", image_size), ("num_workers", num_workers)):
            if value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        if not 0 <= rank < world_size:
            raise InputError(f"rank {rank} does not exist with world_size {world_size}")
        self.dataset, self.split = dataset, split
        self.batch_size, self.image_size = batch_size, image_size
        self.device = torch.device(device)
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.num_workers, self.augmentation, self.drop_last = num_workers, augmentation, drop_last
        for name, text, choices in (("order", order, ORDERS), ("on_error", on_error, ("raise", "skip"))):
            if text not in choices:
                raise InputError(f"{name} is {text!r}; it must be {' or '.join(choices)}")
        self.order, self.on_error = order, on_error
        self.samples = Samples(dataset, split)
        self._epoch = 0
        self._position = 0  # batches of this epoch that were yielded

    @abstractmethod
    def _produce(self, requests: Iterator[Request]) -> Generator[Batch]:
        """Yields the requested batches in order, in CPU memory (pinned if the device is CUDA) or on the device."""

    def _finished(self, request: Request, images: torch.Tensor, errors: Sequence[tuple[int, str]]) -> Batch:
        """Returns the batch of these images. ``errors``: the positions of samples that could not be decoded, and why.

        The first one is raised as ImageError; with ``on_error`` "skip" they are left out and counted.
        """
        labels = torch.from_numpy(self.samples.label[request.samples])
        if errors:
            self._report_damage(request, errors)
            kept = np.setdiff1d(np.arange(len(labels)), [i for i, _ in errors])
            images, labels = images[kept].contiguous(memory_format=torch.channels_last), labels[kept]
        return images, labels

    def _report_damage(self, request: Request, errors: Sequence[tuple[int, str]]) -> None:
        """Raises the first error as ImageError, or counts them all, as ``on_error`` says."""
        if self.on_error == "raise":
            i, message = errors[0]
            raise ImageError(f"{self.samples.name(int(request.samples[i]))}: {message}")
        self.skipped += len(errors)

    def __len__(self) -> int:
        """The number of batches per epoch on this rank."""
        full, rest = divmod(len(self.samples), self.batch_size * self.world_size)
        return full + (rest > self.rank and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration; order and crops depend on it. A new epoch starts at its first batch."""
        if epoch != self._epoch:
            self._epoch, self._position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Returns the epoch, the number of its batches that were yielded, and the settings that determine them."""
        return {"epoch": self._epoch, "batch": self._position, **self._identity()}

    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "global_batch": self.batch_size * self.world_size,
            "samples": len(self.samples),
            "order": self.order,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration resume after the last batch that was yielded when the state was taken.

        The number of ranks may differ, but not the global batch size. Raises InputError if the state belongs to another
        sequence of batches.
        """
        for name, value in self._identity().items():
            if state.get(name, value) != value:
                raise InputError(f"cannot resume a loader with {name}={value}: its state has {name}={state[name]}")
        self._epoch, self._position = int(state["epoch"]), int(state["batch"])

    def __iter__(self) -> Iterator[Batch]:
        with closing(self._produce(self._requests(self._position))) as batches:
            for batch in to_device(batches, self.device):
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
        """Ends threads and frees memory maps."""

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def to_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Copies each batch to the device. With CUDA, the next batch is copied on a separate stream while one is in use."""
    if device.type == "cpu":
        yield from batches
    elif device.type != "cuda":
        for images, labels in batches:
            yield images.to(device), labels.to(device)
    else:
        stream = torch.cuda.Stream(device)
        previous: tuple[Batch, torch.cuda.Event] | None = None
        for images, labels in batches:
            with torch.cuda.stream(stream):
                copied = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
                done = stream.record_event()
            if previous is not None:
                yield _wait_for_copy(*previous)
            previous = copied, done
        if previous is not None:
            yield _wait_for_copy(*previous)


def _wait_for_copy(batch: Batch, done: torch.cuda.Event) -> Batch:
    stream = torch.cuda.current_stream(batch[0].device)
    stream.wait_event(done)
    for tensor in batch:  # allocated on the copy stream: their memory must not be reused before this stream is done
        tensor.record_stream(stream)
    return batch
