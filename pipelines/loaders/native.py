"""The project's own loader: memory-mapped shards, crops decoded by C++ threads straight into the batch."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch

from imgtool.pipelines.codec import Pool
from imgtool.pipelines.loaders.base import Batch, Loader
from imgtool.pipelines.loaders.sampling import Request
from imgtool.wordnet.errors import ImageError

AHEAD = 2
"""Batches made before they are asked for."""


class NativeLoader(Loader):
    """``num_workers`` is the number of C++ threads. Every batch is memory of its own: it may be kept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pool = Pool(self.num_workers)

    def close(self) -> None:
        del self._pool  # joins the threads

    def _produce(self, requests: Iterator[Request]) -> Generator[Batch]:
        ready: queue.Queue[Batch | BaseException | None] = queue.Queue(AHEAD)
        stop = threading.Event()

        def put(item: Batch | BaseException | None) -> None:
            while not stop.is_set():
                try:
                    return ready.put(item, timeout=0.1)
                except queue.Full:
                    continue

        def produce() -> None:
            try:
                for request in requests:
                    if stop.is_set():
                        return
                    put(self._decode(request))
                put(None)
            except BaseException as error:  # handed to the consumer, who raises it
                put(error)

        thread = threading.Thread(target=produce, name="imgtool-loader", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()

    def _decode(self, request: Request) -> Batch:
        samples, chosen, size = self.samples, request.samples, request.size
        # NHWC in memory is channels_last once the axes are named NCHW.
        pixels = torch.empty((len(chosen), size, size, 3), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        errors = self._pool.decode_batch(
            samples.buffers,
            samples.shard[chosen],
            samples.offset[chosen],
            samples.size[chosen],
            np.stack([samples.width[chosen], samples.height[chosen]], 1),
            request.crops,
            pixels.numpy(),
        )
        if errors:
            i, message = errors[0]
            raise ImageError(f"{samples.name(int(chosen[i]))}: {message}")
        return pixels.permute(0, 3, 1, 2), torch.from_numpy(samples.label[chosen])
