"""From shards to batches: one module per backend, one protocol (:class:`~imgtool.pipelines.loaders.base.Loader`)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.threads import available_cpus
from imgtool.wordnet.errors import InputError

if TYPE_CHECKING:
    import torch

    from imgtool.pipelines.loaders.base import Loader

BACKENDS = ("native", "ffcv", "dali", "torchvision")


def open_loader(
    data: str | Path | Dataset,
    split: str,
    *,
    batch_size: int,
    image_size: int,
    backend: str = "auto",
    device: str | torch.device = "cpu",
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int | None = None,
    augment: bool | None = None,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    hflip: float = 0.5,
    drop_last: bool = False,
    order: str = "random",
    on_error: str = "raise",
) -> Loader:
    """Opens a loader over a split of a prepared data set.

    It yields images, uint8 [N, 3, image_size, image_size] channels_last, and labels, int64 [N], on ``device``.
    ``batch_size`` is that of one rank. ``augment`` (default: only for the split "train") shuffles, takes random crops
    (area ``scale``, aspect ratio ``ratio``) and flips; otherwise the samples come in stored order under the validation
    transform. ``num_workers`` is the number of threads (default: this machine's cores). ``backend`` is one of
    ``BACKENDS``, or "auto" for native. ``order`` is that of an augmented epoch: "random", or "quasi" (quasi-random) for
    slow disks. A damaged sample raises ImageError when its batch is due; with ``on_error`` "skip" it is left out and
    counted in ``loader.skipped``.

    Raises DatasetError if the data set cannot be read, InputError for a wrong argument or a backend that is not
    available.
    """
    from imgtool.pipelines.loaders.sampling import CropAndFlip

    if backend not in ("auto", *BACKENDS):
        raise InputError(f"unknown loader backend {backend!r}; choose one of auto, {', '.join(BACKENDS)}")
    if augment is None:
        augment = split == "train"
    return _class_of("native" if backend == "auto" else backend)(
        data if isinstance(data, Dataset) else Dataset(data),
        split,
        batch_size=batch_size,
        image_size=image_size,
        device=device,
        seed=seed,
        rank=rank,
        world_size=world_size,
        num_workers=available_cpus() if num_workers is None else num_workers,
        augmentation=CropAndFlip(scale, ratio, hflip) if augment else None,
        drop_last=drop_last,
        order=order,
        on_error=on_error,
    )


def _class_of(backend: str) -> type[Loader]:
    if backend == "ffcv":
        from imgtool.pipelines.loaders.ffcv import FFCVLoader

        return FFCVLoader
    if backend == "dali":
        from imgtool.pipelines.loaders.dali import DALILoader

        return DALILoader
    if backend == "torchvision":
        from imgtool.pipelines.loaders.torchvision import TorchvisionLoader

        return TorchvisionLoader
    from imgtool.pipelines.loaders.native import NativeLoader

    return NativeLoader


def missing(backend: str) -> str | None:
    """Returns why a backend cannot be used on this machine and what to do, or None if it can."""
    if backend in ("ffcv", "dali"):
        module = importlib.import_module(f"imgtool.pipelines.loaders.{backend}")
        reason: str | None = module.missing()
        return reason
    return None
