"""The backend ``native``: memory-mapped shards; C++ threads decode the crops directly into the batch."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from imgtool.pipelines import codec
from imgtool.pipelines.loaders.base import Batch, Loader
from imgtool.pipelines.loaders.sampling import Request

PREFETCH = 2
"""The number of batches that are started in advance, so that the threads never wait between batches."""


class _PendingBatch(NamedTuple):
    request: Request
    images: torch.Tensor
    batch: codec.Batch


class _ArrayPool:
    """Arrays for batches, reused when nobody else refers to them: each page of new memory costs a page fault."""

    def __init__(self) -> None:
        self._kept: deque[npt.NDArray[np.uint8]] = deque(maxlen=PREFETCH + 2)

    def take(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """Returns an array of this shape with arbitrary content."""
        for array in self._kept:
            # three references: the deque, this loop and the call. A tensor or view of the array would be one more.
            if array.shape == shape and sys.getrefcount(array) == 3:
                return array
        array = np.empty(shape, np.uint8)
        self._kept.append(array)
        return array


class NativeLoader(Loader):
    """``num_workers`` is the number of C++ threads. Batches do not share memory, so they may be kept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pool = codec.Pool(self.num_workers)
        self._buffers = codec.Buffers(self.samples.buffers)
        self._arrays = _ArrayPool()

    def close(self) -> None:
        del self._pool  # joins the threads

    def _produce(self, requests: Iterator[Request]) -> Generator[Batch]:
        pending: deque[_PendingBatch] = deque()  # if the consumer stops early, the threads drop these batches
        for request in requests:
            pending.append(self._begin(request))
            if len(pending) > PREFETCH:
                yield self._finish(pending.popleft())
        while pending:
            yield self._finish(pending.popleft())

    def _begin(self, request: Request) -> _PendingBatch:
        samples, chosen, size = self.samples, request.samples, request.size
        # NHWC in memory is NCHW in channels_last format.
        shape = (self.batch_size, size, size, 3)
        if self.device.type == "cuda":  # torch reuses pinned memory itself
            pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=True)[: len(chosen)]
        else:
            pixels = torch.from_numpy(self._arrays.take(shape)[: len(chosen)])
        batch = codec.Batch(
            self._pool,
            self._buffers,
            samples.shard[chosen],
            samples.offset[chosen],
            samples.size[chosen],
            samples.raw[chosen],
            np.stack([samples.width[chosen], samples.height[chosen]], 1),
            request.crops,
            pixels.numpy(),
        )
        return _PendingBatch(request, pixels.permute(0, 3, 1, 2), batch)

    def _finish(self, pending: _PendingBatch) -> Batch:
        errors = pending.batch.wait()
        return self._finished(pending.request, pending.images, errors)
