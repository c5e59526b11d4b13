"""What all loaders have in common: order, crops, position, device. A backend only turns requests into pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

import torch

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders.samples import Samples
from imgtool.pipelines.loaders.sampling import Augmentation, Request, batch_of, crops_for, epoch_order
from imgtool.wordnet.errors import InputError

Batch = tuple[torch.Tensor, torch.Tensor]


class Loader(ABC):
    """Iterates over one epoch of a split: (images, labels) a batch.

    images: uint8 [N, 3, H, W], channels_last, on ``device``; labels: int64 [N], there too. ``image_size`` may be set
    between epochs. Order and crops are functions of (seed, epoch, sample). With an ``augmentation`` the order is
    shuffled; without, the samples come in stored order under the validation transform. Close it, or use it in a
    ``with``; iterating again after :meth:`close` is an error.
    """

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
        self.samples = Samples(dataset, split)
        self._epoch = 0
        self._position = 0  # batches of this epoch handed out

    @abstractmethod
    def _produce(self, requests: Iterator[Request]) -> Generator[Batch]:
        """Makes the requested batches, in order, on the CPU (pinned where CUDA is the device)."""

    def __len__(self) -> int:
        """Batches an epoch, on this rank."""
        whole, rest = divmod(len(self.samples), self.batch_size * self.world_size)
        return whole + (rest > self.rank and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch the next iteration runs over; its order and crops follow from it."""
        if epoch != self._epoch:
            self._epoch, self._position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Epoch and batches handed out of it."""
        return {"epoch": self._epoch, "batch": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration goes on behind the last batch that was handed out."""
        self._epoch, self._position = int(state["epoch"]), int(state["batch"])

    def __iter__(self) -> Iterator[Batch]:
        with closing(self._produce(self._requests(self._position))) as batches:
            for images, labels in batches:
                self._position += 1
                if self.device.type != "cpu":
                    images = images.to(self.device, non_blocking=True)
                    labels = labels.to(self.device, non_blocking=True)
                yield images, labels
        self._position = 0

    def _requests(self, start: int) -> Iterator[Request]:
        epoch, size, samples = self._epoch, self.image_size, self.samples
        order = epoch_order(len(samples), self.seed, epoch, shuffle=self.augmentation is not None)
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
