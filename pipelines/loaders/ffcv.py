"""Stock FFCV decoding our .beton shards, behind the protocol that all loaders share.

FFCV's reader knows one file, draws its crops from an unseeded generator, gives a black image for a damaged one, and
hangs when its thread dies. So it gets all shards of a split as one stretch of memory; each sample's crop and flip in
columns beside its metadata, which also take whether its decoder failed; and an epoch that passes its errors on. Its
compiled pipeline, its decoder and its resize (OpenCV's INTER_AREA) are its own. Source: FFCV 1.0.2.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
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
AHEAD = 2
"""Batches made before they are asked for."""

COLUMNS = np.dtype(
    [
        *[("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")],  # as FFCV has them
        *[("x", "<i4"), ("y", "<i4"), ("w", "<i4"), ("h", "<i4"), ("flip", "<u1"), ("failed", "<u1")],
    ]
)


def missing() -> str | None:
    """Why FFCV cannot be used here; None if it can."""
    try:
        import ffcv.loader  # noqa: F401
    except Exception as error:  # a missing module, a library that does not load, numba that does not know this numpy
        return f"FFCV cannot be imported ({error}); {INSTALL}"
    return None


class FFCVLoader(Loader):
    """``num_workers`` is the number of FFCV's threads. It compiles for some 10 seconds before the first batch of an
    image size. The same order, crops and flips as the native loader; the pixels are FFCV's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if reason := missing():
            raise InputError(f"backend ffcv: {reason}")
        if "beton" not in self.dataset.formats:
            raise InputError(f"backend ffcv: {self.dataset.path} has no .beton shards; prepare it with --format beton")
        self._memory = _Stretch(self.samples)
        self._metadata = np.zeros(len(self.samples), [("f0", COLUMNS)])
        columns = self._metadata["f0"]
        columns["mode"] = self.samples.raw
        columns["width"], columns["height"] = self.samples.width, self.samples.height
        columns["data_ptr"] = self._memory.start[self.samples.shard] + self.samples.offset
        self._pipelines: dict[int, Any] = {}

    def _pipeline(self, size: int) -> Any:
        """What FFCV's epoch iterator needs of a loader, for one image size."""
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
                batches_ahead=AHEAD,
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
        torch.set_num_threads(threads)  # FFCV sets it to its own
        try:
            for request in wanted:
                pixels = epoch.take()
                failed = np.flatnonzero(self._metadata["f0"]["failed"][request.samples])
                # FFCV will use this memory again
                images = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
                images.copy_(torch.from_numpy(pixels))
                errors = [(int(i), "the JPEG data is damaged") for i in failed]
                yield self._sound(request, images.permute(0, 3, 1, 2), errors)
        finally:
            epoch.stop()


class _Stretch:
    """All shards of a split side by side in memory: ``bytes``, uint8, and where each begins in it, ``start``, uint64.

    Addresses are set aside for the sum of their sizes, and each file is mapped to its part of them.
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
                # MAP_FIXED is 16 on Linux, and not among Python's constants
                flags = mmap.MAP_SHARED | 16
                if libc.mmap(at, len(buffer), mmap.PROT_READ, flags, file.fileno(), 0) != at:
                    raise InputError(f"{path}: cannot be mapped: error {ctypes.get_errno()}")


def _memory_manager(data: npt.NDArray[np.uint8], ptrs: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint64]) -> Any:
    from ffcv.memory_managers.os_cache import OSCacheContext, OSCacheManager

    class Manager(OSCacheManager):
        def __init__(self) -> None:  # not its own, which wants a file
            order = np.argsort(ptrs, kind="stable")
            self.ptrs, self.sizes = ptrs[order], sizes[order]
            self.context = OSCacheContext(self)
            self.context.mmap = data

    return Manager()


def _decoder(size: int) -> Any:
    """FFCV's decoder of resized crops, with the crops and flips of the metadata's columns."""
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
    from ffcv.loader.epoch_iterator import EpochIterator

    class Epoch(EpochIterator):
        error: BaseException | None = None

        def run(self) -> None:
            try:
                super().run()
            except BaseException as error:  # FFCV's own would leave the consumer waiting for ever
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
    """Each request's crop as the source rectangle that becomes the output, in whole pixels."""
    x, y, w, h, resized_w, resized_h, window_x, window_y, flip = request.crops.T
    size, at = request.size, request.samples
    columns["w"][at] = np.maximum(np.rint(size * w / resized_w), 1)
    columns["h"][at] = np.maximum(np.rint(size * h / resized_h), 1)
    columns["x"][at] = np.minimum(x + np.rint(window_x * w / resized_w), x + w - columns["w"][at])
    columns["y"][at] = np.minimum(y + np.rint(window_y * h / resized_h), y + h - columns["h"][at])
    columns["flip"][at], columns["failed"][at] = flip, 0
