"""Part "loaders": crops of stored JPEGs, from page cache into the device's memory, the pinned copy included.

native is the project's own, dali its DALI backend (on a GPU ``mixed``, that is with the hardware decoder), nvjpeg the
peer that TorchCodec offers: a batch decoded whole by decode_jpeg on the device, each image then cropped and resized
there by torchvision. All make the same crops in the same order.
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
from imgtool.bench.gpu.plan import Plan
from imgtool.bench.gpu.record import Record
from imgtool.bench.gpu.table import Measured, Row, good, median
from imgtool.bench.loader import HEAD
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import missing, open_loader
from imgtool.pipelines.loaders.base import Batch, Loader

ENOUGH = 15_000
"""Images/s that training the n model is to take."""


def measure(plan: Plan, record: Record) -> None:
    scale = plan.scale
    absent = {"dali": missing("dali"), "nvjpeg": _no_nvjpeg()}
    for peer, reason in absent.items():
        if reason:
            record.absent(peer, reason)
    for side in scale.sides:
        data = data_set(plan, side)
        for threads in sorted(scale.threads, reverse=True):
            for kind in ("native", "dali"):
                if not absent.get(kind):
                    record.measure(f"{kind} {side} {threads}", partial(_rates, plan, data, side, kind, threads))
        if not absent["nvjpeg"]:
            record.measure(f"nvjpeg {side} 1", partial(_rates, plan, data, side, "nvjpeg", 1))


def _no_nvjpeg() -> str | None:
    try:
        from torchcodec.decoders import decode_jpeg  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # the last two: built for another release of PyTorch
        return str(error).strip().partition("\n")[0]
    return None


def _rates(plan: Plan, data: Dataset, side: int, kind: str, threads: int) -> dict[str, Any]:
    with open_loader(
        data,
        "train",
        batch_size=plan.scale.loader_batch,
        image_size=plan.image_size,
        backend="native" if kind == "nvjpeg" else kind,
        device=plan.device,
        num_workers=threads,
        drop_last=True,
    ) as loader:
        rates = []
        for number in range(
            -1, plan.scale.rounds
        ):  # in the first, files come into the page cache and pipelines are built
            epochs = itertools.count((number + 1) * 1000)
            batches = nvjpeg(loader, epochs) if kind == "nvjpeg" else endless(loader, epochs)
            with closing(batches):
                rate = rate_of(batches, plan.scale.seconds, plan.device)
            if number >= 0:
                rates.append(round(rate, 1))
    out = {"loader": kind, "side": side, "threads": threads, "rates": rates}
    return out | {"batch": plan.scale.loader_batch, "image_size": plan.image_size, "data": data.path.name}


def endless(loader: Loader, epochs: Iterator[int]) -> Generator[Batch]:
    """One epoch after another."""
    for epoch in epochs:
        loader.set_epoch(epoch)
        yield from loader


def nvjpeg(loader: Loader, epochs: Iterator[int]) -> Generator[Batch]:
    """The loader's own crops through TorchCodec and torchvision: decoded, cropped and resized on its device."""
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
    """Images a second for so long, behind the first ``HEAD`` batches; the last copy has arrived by then."""
    for _ in range(HEAD):
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
    """Native by threads against what training asks for; peers against native at as many threads, or at most."""
    native = {(one["side"], one["threads"]): one for one in good(measured) if one["loader"] == "native"}
    most = max((threads for _, threads in native), default=0)
    out = []
    for one in sorted(good(measured), key=lambda one: (one["side"], one["loader"] != "native", one["threads"])):
        rate, threads = median(one), one["threads"]
        what = f"loader {one['loader']}, stored side {one['side']}, {threads} thread{'s' * (threads > 1)}"
        figure, aim = f"{rate:,.0f} images/s", one["loader"] == "native" and threads == most
        beside = native.get((one["side"], most if one["loader"] == "nvjpeg" else threads))
        if one["loader"] != "native" and beside:
            figure += f"; native is {median(beside) / rate:.2f} ×"
        met = rate >= ENOUGH if aim else None
        out.append(Row(what, figure, f"{ENOUGH:,}" if aim else "", met, len(one["rates"])))
    return out
