"""Part "loaders": loads crops of stored JPEGs from the page cache into the device's memory, through pinned memory.

native is imgtool's own loader. dali is its DALI backend (``mixed`` on a GPU, that is, with the hardware decoder).
nvjpeg is the peer: TorchCodec's decode_jpeg decodes a whole batch on the device, and torchvision crops and resizes each
image there. All make the same crops in the same order.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import torch

from imgtool.bench.gpu.images import data_set
from imgtool.bench.gpu.results import PartResults
from imgtool.bench.gpu.settings import BenchSettings
from imgtool.bench.gpu.table import Measured, Row, median, successful
from imgtool.bench.loader import WARMUP_BATCHES
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import missing, open_loader
from imgtool.pipelines.loaders.base import Batch, Loader

TARGET = 15_000
"""Images/s at which the n model is to be trained."""


def measure(settings: BenchSettings, results: PartResults) -> None:
    workload = settings.workload
    absent = {"dali": missing("dali"), "nvjpeg": _no_nvjpeg()}
    for peer, reason in absent.items():
        if reason:
            results.absent(peer, reason)
    for side in workload.sides:
        data = data_set(settings, side)
        for threads in sorted(workload.threads, reverse=True):
            for kind in ("native", "dali"):
                if not absent.get(kind):
                    results.measure(f"{kind} {side} {threads}", partial(_rates, settings, data, side, kind, threads))
        if not absent["nvjpeg"]:
            results.measure(f"nvjpeg {side} 1", partial(_rates, settings, data, side, "nvjpeg", 1))


def _no_nvjpeg() -> str | None:
    try:
        from torchcodec.decoders import decode_jpeg  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # the last two if it was built for another PyTorch release
        return str(error).strip().partition("\n")[0]
    return None


def _rates(settings: BenchSettings, data: Dataset, side: int, kind: str, threads: int) -> dict[str, Any]:
    with open_loader(
        data,
        "train",
        batch_size=settings.workload.loader_batch,
        image_size=settings.image_size,
        backend="native" if kind == "nvjpeg" else kind,
        device=settings.device,
        num_workers=threads,
        drop_last=True,
    ) as loader:
        rates = []
        for number in range(-1, settings.workload.rounds):  # round -1 fills the page cache and builds pipelines
            epochs = itertools.count((number + 1) * 1000)
            batches = nvjpeg(loader, epochs) if kind == "nvjpeg" else endless(loader, epochs)
            with closing(batches):
                rate = rate_of(batches, settings.workload.seconds, settings.device)
            if number >= 0:
                rates.append(round(rate, 1))
    out = {"loader": kind, "side": side, "threads": threads, "rates": rates}
    return out | {"batch": settings.workload.loader_batch, "image_size": settings.image_size, "data": data.path.name}


def endless(loader: Loader, epochs: Iterator[int]) -> Generator[Batch]:
    """Yields the batches of one epoch after another."""
    for epoch in epochs:
        loader.set_epoch(epoch)
        yield from loader


def nvjpeg(loader: Loader, epochs: Iterator[int]) -> Generator[Batch]:
    """Yields the loader's crops, but decoded, cropped and resized on its device by TorchCodec and torchvision."""
    from torchcodec.decoders import decode_jpeg
    from torchvision.transforms.v2 import functional as F

    device = loader.device
    for epoch in epochs:
        loader.set_epoch(epoch)
        for request in loader._requests(0):
            stored = [bytes(loader.samples.data(s)) for s in request.samples.tolist()]
            decoded = decode_jpeg(stored, device=device)
            images = torch.empty((len(stored), 3, request.size, request.size), dtype=torch.uint8, device=device)
            images = images.to(memory_format=torch.channels_last)
            for i, (image, crop) in enumerate(zip(decoded, request.crops.tolist(), strict=True)):
                x, y, w, h, resized_w, resized_h, window_x, window_y, flip = crop
                image = F.resized_crop(image, y, x, h, w, [resized_h, resized_w], antialias=True)
                image = F.crop(image, window_y, window_x, request.size, request.size)
                images[i] = F.horizontal_flip(image) if flip else image
            yield images, torch.from_numpy(loader.samples.label[request.samples]).to(device)


def rate_of(batches: Iterator[Batch], seconds: float, device: torch.device) -> float:
    """Returns images/s over ``seconds``, after ``WARMUP_BATCHES`` batches; waits for the last copy to the device."""
    for _ in range(WARMUP_BATCHES):
        next(batches)
    _wait(device)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        count += len(next(batches)[0])
    _wait(device)
    return count / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rows(measured: Measured) -> list[Row]:
    """Returns the rates of native against the target, and those of the peers against native with the same threads.

    nvjpeg is compared with native at its most threads.
    """
    native = {(one["side"], one["threads"]): one for one in successful(measured) if one["loader"] == "native"}
    most = max((threads for _, threads in native), default=0)
    out = []
    for one in sorted(successful(measured), key=lambda one: (one["side"], one["loader"] != "native", one["threads"])):
        rate, threads = median(one), one["threads"]
        what = f"loader {one['loader']}, longer side {one['side']}, {threads} thread{'s' * (threads > 1)}"
        figure, aim = f"{rate:,.0f} images/s", one["loader"] == "native" and threads == most
        beside = native.get((one["side"], most if one["loader"] == "nvjpeg" else threads))
        if one["loader"] != "native" and beside:
            figure += f"; native is {median(beside) / rate:.2f} × as fast"
        met = rate >= TARGET if aim else None
        out.append(Row(what, figure, f"{TARGET:,}" if aim else "", met, len(one["rates"])))
    return out
