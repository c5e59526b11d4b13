"""The backend ``ffcv``: stock FFCV decodes our .beton shards under the protocol that all loaders share.

FFCV reads one file, draws its crops from an unseeded generator, returns a black image for a damaged one, and hangs when
its thread dies. So we give it all shards of a split as one contiguous range of memory; each sample's crop and flip in
additional metadata columns, with one more for whether the decoder failed; and an epoch iterator that passes exceptions
on. The compiled pipeline, the decoder and the resize (OpenCV's INTER_AREA) are FFCV's. Source: FFCV 1.0.2.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import queue
from collections.abc import Generator, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from imgtool.pipelines.loaders.base import Batch, Loader
from imgtool.pipelines.loaders.samples import Samples
from imgtool.pipelines.loaders.sampling import Request
from imgtool.wordnet.errors import InputError

INSTALL = "install it as docs/ffcv.md says (ffcv==1.0.2, an sdist that needs OpenCV's headers)"
PREFETCH = 2
"""The number of batches that are made in advance."""

COLUMNS = np.dtype(
    [
        *[("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")],  # FFCV's own columns
        *[("x", "<i4"), ("y", "<i4"), ("w", "<i4"), ("h", "<i4"), ("flip", "<u1"), ("failed", "<u1")],
    ]
)


def missing() -> str | None:
    """Returns why FFCV cannot be used on this machine, or None if it can."""
    try:
        import ffcv.loader  # noqa: F401
    except Exception as error:  # a missing module, a library that does not load, a numba too old for this numpy
        return f"FFCV cannot be imported ({error}); {INSTALL}"
    return None


class FFCVLoader(Loader):
    """Same order, crops and flips as the native loader; FFCV decodes and resizes. ``num_workers``: FFCV's threads.

    FFCV compiles its pipeline for about 10 seconds before the first batch of each image size.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if reason := missing():
            raise InputError(f"backend ffcv: {reason}")
        if "beton" not in self.dataset.formats:
            raise InputError(f"backend ffcv: {self.dataset.path} has no .beton shards; prepare it with --format beton")
        self._memory = _ContiguousShards(self.samples)
        self._metadata = np.zeros(len(self.samples), [("f0", COLUMNS)])
        columns = self._metadata["f0"]
        columns["mode"] = self.samples.raw
        columns["width"], columns["height"] = self.samples.width, self.samples.height
        columns["data_ptr"] = self._memory.start[self.samples.shard] + self.samples.offset
        self._pipelines: dict[int, Any] = {}

    def _pipeline(self, size: int) -> Any:
        """Makes what FFCV's epoch iterator needs from a loader, for one image size."""
        if size not in self._pipelines:
            from ffcv.fields import RGBImageField
            from ffcv.pipeline import Compiler, PipelineSpec
            from ffcv.pipeline.graph import Graph

            Compiler.set_num_threads(self.num_workers)
            manager = _memory_manager(self._memory.bytes, self._metadata["f0"]["data_ptr"], self.samples.size)
            spec = PipelineSpec("image", decoder=_decoder(size))
            graph = Graph(
                {"image": spec}, {"image": RGBImageField()}, {"image": 0}, self._metadata, manager.compile_reader()
            )
            self._pipelines[size] = SimpleNamespace(
                batch_size=self.batch_size,
                batches_ahead=PREFETCH,
                num_workers=self.num_workers,
                traversal_order=None,
                reader=SimpleNamespace(metadata=self._metadata),
                memory_manager=manager,
                graph=graph,
                code=graph.codegen_all(graph.collect_requirements()[1]),
            )
        return self._pipelines[size]

    def _produce(self, requests: Iterator[Request]) -> Generator[Batch]:
        wanted = list(requests)
        if not wanted:
            return
        threads = torch.get_num_threads()
        epoch = _epoch(self._pipeline(wanted[0].size), wanted)
        torch.set_num_threads(threads)  # FFCV has changed it
        try:
            for request in wanted:
                pixels = epoch.take()
                failed = np.flatnonzero(self._metadata["f0"]["failed"][request.samples])
                # a copy, because FFCV reuses its memory
                images = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
                images.copy_(torch.from_numpy(pixels))
                errors = [(int(i), "the JPEG data is damaged") for i in failed]
                yield self._finished(request, images.permute(0, 3, 1, 2), errors)
        finally:
            epoch.stop()


class _ContiguousShards:
    """All shards of a split mapped side by side: ``bytes`` (uint8), and ``start`` (uint64), where each shard begins.

    Reserves addresses for the sum of the sizes and maps each file to its part of them.
    """

    def __init__(self, samples: Samples) -> None:
        page = mmap.ALLOCATIONGRANULARITY
        sizes = [-(-len(buffer) // page) * page for buffer in samples.buffers]
        self.start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint64)[:-1]
        self._reserved = mmap.mmap(-1, sum(sizes), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ)
        self.bytes = np.frombuffer(self._reserved, np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        for path, buffer, start in zip(samples.paths, samples.buffers, self.start.tolist(), strict=True):
            at = self.bytes.ctypes.data + start
            with open(path, "rb") as file:
                # MAP_FIXED, which Python's mmap module lacks, is 16 on Linux
                flags = mmap.MAP_SHARED | 16
                if libc.mmap(at, len(buffer), mmap.PROT_READ, flags, file.fileno(), 0) != at:
                    raise InputError(f"{path}: cannot be memory-mapped: {os.strerror(ctypes.get_errno())}")


def _memory_manager(data: npt.NDArray[np.uint8], ptrs: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint64]) -> Any:
    from ffcv.memory_managers.os_cache import OSCacheContext, OSCacheManager

    class Manager(OSCacheManager):
        def __init__(self) -> None:  # replaces FFCV's, which reads a file
            order = np.argsort(ptrs, kind="stable")
            self.ptrs, self.sizes = ptrs[order], sizes[order]
            self.context = OSCacheContext(self)
            self.context.mmap = data

    return Manager()


def _decoder(size: int) -> Any:
    """Makes FFCV's decoder of resized crops, with crops and flips from the metadata columns."""
    from ffcv.fields.rgb_image import ResizedCropRGBImageDecoder
    from ffcv.libffcv import imdecode, resize_crop
    from ffcv.pipeline import Compiler

    class Decoder(ResizedCropRGBImageDecoder):
        get_crop_generator = None

        def generate_code(self) -> Any:
            read, each = self.memory_read, Compiler.get_iterator()
            decode_jpeg, resize = Compiler.compile(imdecode), Compiler.compile(resize_crop)

            def decode(batch_indices, storage, metadata, storage_state):  # type: ignore[no-untyped-def]
                destination, temporary = storage
                failed = metadata["failed"]
                for i in each(len(batch_indices)):
                    sample = batch_indices[i]
                    row = metadata[sample]
                    data = read(row["data_ptr"], storage_state)
                    height, width = np.uint32(row["height"]), np.uint32(row["width"])
                    if row["mode"] == 0:
                        whole = temporary[i]
                        status = decode_jpeg(data, whole, height, width, height, width, 0, 0, 1, 1, False, False)
                        if status != 0:
                            failed[sample] = 1
                        pixels = whole.reshape(-1)[: 3 * height * width].reshape(height, width, 3)
                    else:
                        pixels = data.reshape(height, width, 3)
                    x, y = np.int64(row["x"]), np.int64(row["y"])
                    resize(pixels, y, y + np.int64(row["h"]), x, x + np.int64(row["w"]), destination[i])
                    if row["flip"] != 0:
                        destination[i] = destination[i][:, ::-1].copy()
                return destination[: len(batch_indices)]

            decode.is_parallel = True  # type: ignore[attr-defined]
            return decode

    return Decoder((size, size))


def _epoch(pipeline: Any, requests: list[Request]) -> Any:
    """Starts FFCV's epoch iterator over the requests."""
    from ffcv.loader.epoch_iterator import EpochIterator

    class Epoch(EpochIterator):
        error: BaseException | None = None

        def run(self) -> None:
            try:
                super().run()
            except BaseException as error:  # without this the consumer would wait forever
                self.error = error
                self.output_queue.put(None)

        def run_pipeline(self, b_ix: int, *rest: Any) -> Any:
            _set_crops(self.metadata["f0"], requests[b_ix])
            return super().run_pipeline(b_ix, *rest)

        def take(self) -> npt.NDArray[np.uint8]:
            item = self.output_queue.get()
            if item is None:
                raise self.error or RuntimeError("FFCV's epoch ended early")
            (pixels,) = item[1]
            return pixels

        def stop(self) -> None:
            self.terminate_event.set()
            while self.is_alive():
                with contextlib.suppress(queue.Empty):
                    self.output_queue.get(timeout=0.01)
            self.close()

    return Epoch(pipeline, np.concatenate([request.samples for request in requests]).astype(np.uint64))


def _set_crops(columns: npt.NDArray[np.void], request: Request) -> None:
    """Writes the crops of a request to the columns: the rectangle that becomes the output, in whole pixels."""
    x, y, w, h, resized_w, resized_h, window_x, window_y, flip = request.crops.T
    size, at = request.size, request.samples
    columns["w"][at] = np.maximum(np.rint(size * w / resized_w), 1)
    columns["h"][at] = np.maximum(np.rint(size * h / resized_h), 1)
    columns["x"][at] = np.minimum(x + np.rint(window_x * w / resized_w), x + w - columns["w"][at])
    columns["y"][at] = np.minimum(y + np.rint(window_y * h / resized_h), y + h - columns["h"][at])
    columns["flip"][at], columns["failed"][at] = flip, 0
