"""The project's own loader: memory-mapped shards, crops decoded by C++ threads straight into the batch."""

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

AHEAD = 2
"""Batches begun before they are asked for: the threads go from one to the next without a pause."""


class _UnderWay(NamedTuple):
    request: Request
    images: torch.Tensor
    batch: codec.Batch


class _Memory:
    """Arrays for batches, used again once nobody else holds them: each page of fresh memory costs a fault."""

    def __init__(self) -> None:
        self._kept: deque[npt.NDArray[np.uint8]] = deque(maxlen=AHEAD + 2)

    def take(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        for array in self._kept:
            # held by the deque, this loop and the call: a tensor or view of it would be one more
            if array.shape == shape and sys.getrefcount(array) == 3:
                return array
        array = np.empty(shape, np.uint8)
        self._kept.append(array)
        return array


class NativeLoader(Loader):
    """``num_workers`` is the number of C++ threads. Every batch is memory of its own: it may be kept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pool = codec.Pool(self.num_workers)
        self._buffers = codec.Buffers(self.samples.buffers)
        self._memory = _Memory()

    def close(self) -> None:
        del self._pool  # joins the threads

    def _produce(self, requests: Iterator[Request]) -> Generator[Batch]:
        under_way: deque[_UnderWay] = deque()  # what is left in it when the consumer stops is dropped by the threads
        for request in requests:
            under_way.append(self._begin(request))
            if len(under_way) > AHEAD:
                yield self._finish(under_way.popleft())
        while under_way:
            yield self._finish(under_way.popleft())

    def _begin(self, request: Request) -> _UnderWay:
        samples, chosen, size = self.samples, request.samples, request.size
        # NHWC in memory is channels_last once the axes are named NCHW.
        shape = (self.batch_size, size, size, 3)
        if self.device.type == "cuda":  # torch keeps pinned memory for the next one by itself
            pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=True)[: len(chosen)]
        else:
            pixels = torch.from_numpy(self._memory.take(shape)[: len(chosen)])
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
        return _UnderWay(request, pixels.permute(0, 3, 1, 2), batch)

    def _finish(self, made: _UnderWay) -> Batch:
        errors = made.batch.wait()
        return self._sound(made.request, made.images, errors)
