"""The backend ``dali``: NVIDIA DALI decodes our shards under the protocol that all loaders share.

An external source gives DALI the bytes, as views of the memory-mapped shards. Order, crops, sharding and the last batch
are therefore exactly those of the other loaders; DALI's own readers shuffle in a buffer, pad, and cannot be resumed.
Without a GPU, DALI's CPU operators run. With one, JPEG is decoded on it (``mixed``: by the hardware decoder if there is
one).
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch

from imgtool.pipelines.loaders.base import Batch, Loader
from imgtool.pipelines.loaders.samples import Samples
from imgtool.pipelines.loaders.sampling import Request
from imgtool.wordnet.errors import ImageError, InputError, first_line

PREFETCH = 2
"""The number of batches that are made in advance."""


def missing() -> str | None:
    """Returns why DALI cannot be used on this machine, or None if it can."""
    try:
        import nvidia.dali  # noqa: F401
    except Exception as error:  # a missing module, or a library that does not load
        return f"DALI cannot be imported ({error}); pip install 'imgtool[dali]'"
    return None


class DALILoader(Loader):
    """Same order, crops and flips as the native loader; DALI decodes and resizes. ``num_workers``: DALI's threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if reason := missing():
            raise InputError(f"backend dali: {reason}")
        self._pipelines: dict[int, tuple[Any, _Feed]] = {}

    def close(self) -> None:
        self._pipelines.clear()

    def _produce(self, requests: Iterator[Request]) -> Generator[Batch]:
        first = next(requests, None)
        if first is None:
            return
        size = first.size
        remaining: Iterator[Request] | None = itertools.chain([first], requests)
        while remaining is not None:
            # Removed while it runs: a pipeline that is left in mid-epoch has batches in progress and is not used again
            if size in self._pipelines:
                pipeline, feed = self._pipelines.pop(size)
            else:
                pipeline, feed = _build(self.samples, size, self.batch_size, self.num_workers, self.device)
            feed.requests, remaining = remaining, None
            while True:
                try:
                    (output,) = pipeline.run()
                except StopIteration:
                    pipeline.reset()
                    self._pipelines[size] = pipeline, feed
                    break
                except RuntimeError as error:  # the pipeline cannot be used after an error
                    retry = self._without_refused(feed.fed.popleft(), error)
                    remaining = itertools.chain([retry], list(feed.fed), feed.requests)
                    break
                images = _to_torch(output, self.device).permute(0, 3, 1, 2)
                yield self._finished(feed.fed.popleft(), images, [])

    def _without_refused(self, request: Request, error: RuntimeError) -> Request:
        """Returns the request without its damaged samples, or else without those that DALI alone refuses.

        DALI fails whole batches and does not say which sample it was, so each is decoded. Raises ImageError as
        ``on_error`` says, and if DALI decodes each of them.
        """
        errors = []
        for i, sample in enumerate(request.samples.tolist()):
            try:
                self.samples.pixels(sample)
            except ImageError as damage:
                errors.append((i, str(damage)))
        errors = errors or self._refused(request)
        if not errors:
            first = self.samples.name(int(request.samples[0]))
            raise ImageError(f"DALI: {_reason(error)}, in the batch of {first}") from error
        self._report_damage(request, errors)
        kept = np.setdiff1d(np.arange(len(request.samples)), [i for i, _ in errors])
        return Request(request.samples[kept], request.crops[kept], request.size)

    def _refused(self, request: Request) -> list[tuple[int, str]]:
        """Gives DALI each sample alone; returns the positions of those that it refuses, and why."""
        errors: list[tuple[int, str]] = []
        built: tuple[Any, _Feed] | None = None
        for i in range(len(request.samples)):
            pipeline, feed = built or _build(self.samples, request.size, 1, self.num_workers, self.device)
            feed.requests = iter([Request(request.samples[i : i + 1], request.crops[i : i + 1], request.size)])
            try:
                pipeline.run()
                with contextlib.suppress(StopIteration):
                    pipeline.run()
                pipeline.reset()
                built = pipeline, feed
            except RuntimeError as error:
                errors.append((i, f"DALI: {_reason(error)}"))
                built = None
        return errors


def _reason(error: RuntimeError) -> str:
    """Returns what went wrong from an error of DALI, without the pipeline's definition around it."""
    _, found, cause = str(error).partition("encountered:")
    return first_line(RuntimeError(cause) if found else error)


class _Feed:
    """A pipeline's external source. Gives it the inputs of the next request: encoded bytes (or raw pixels), the crop in
    the image, the part of the crop that becomes the output, and whether the output is mirrored."""

    def __init__(self, samples: Samples) -> None:
        self.samples, self.raw = samples, bool(samples.raw.any())
        self.requests: Iterator[Request] = iter(())
        self.fed: deque[Request] = deque()

    def __call__(self) -> tuple[Any, ...]:
        request = next(self.requests)
        self.fed.append(request)
        samples, chosen = self.samples, request.samples
        x, y, w, h, resized_w, resized_h, window_x, window_y, flip = request.crops.astype(np.float32).T
        left, top = window_x * w / resized_w, window_y * h / resized_h
        right, bottom = left + request.size * w / resized_w, top + request.size * h / resized_h
        data = [np.frombuffer(samples.data(sample), np.uint8) for sample in chosen.tolist()]
        if self.raw:
            shapes = zip(samples.height[chosen].tolist(), samples.width[chosen].tolist(), strict=True)
            data = [pixels.reshape(*shape, 3) for pixels, shape in zip(data, shapes, strict=True)]
        return (
            data,
            np.stack([x, y], 1).astype(np.int32),
            np.stack([w, h], 1).astype(np.int32),
            np.stack([top, left], 1),
            np.stack([bottom, right], 1),
            flip.astype(np.int32),
        )


def _build(samples: Samples, size: int, batch_size: int, threads: int, device: torch.device) -> tuple[Any, _Feed]:
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import Pipeline

    feed, gpu = _Feed(samples), device.type == "cuda"
    pipeline = Pipeline(batch_size, threads, (device.index or 0) if gpu else None, prefetch_queue_depth=PREFETCH)
    with pipeline:
        data, anchor, shape, start, end, flip = fn.external_source(
            feed,
            num_outputs=6,
            no_copy=True,
            dtype=[types.UINT8, types.INT32, types.INT32, types.FLOAT, types.FLOAT, types.INT32],
            ndim=[3 if feed.raw else 1, 1, 1, 1, 1, 0],
        )
        if feed.raw:
            images = fn.slice(data.gpu() if gpu else data, anchor, shape, axis_names="WH")
        else:
            # Crops are those of the stored pixels; by default, DALI would apply the EXIF orientation before
            images = fn.decoders.image_slice(
                *(data, anchor, shape), axis_names="WH", device="mixed" if gpu else "cpu", adjust_orientation=False
            )
        images = fn.resize(
            images,
            resize_x=size,
            resize_y=size,
            roi_start=start,
            roi_end=end,
            antialias=True,
            interp_type=types.INTERP_LINEAR,
        )
        pipeline.set_outputs(fn.flip(images, horizontal=flip))
    pipeline.build()
    return pipeline, feed


def _to_torch(output: Any, device: torch.device) -> torch.Tensor:
    """Copies DALI's batch, uint8 [N, H, W, 3], to ``device``: DALI reuses its memory."""
    from nvidia.dali.plugin.pytorch import feed_ndarray

    tensor = output.as_tensor()
    if device.type == "cuda":
        images = torch.empty(tensor.shape(), dtype=torch.uint8, device=device)
        feed_ndarray(tensor, images, cuda_stream=torch.cuda.current_stream(device))
        return images
    return torch.from_numpy(np.array(tensor))
