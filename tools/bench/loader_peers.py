"""The peers of ``imgtool bench loader``, each set up as its users do.

Each peer is a function of (folder of the images, batch size, image size, threads). It returns a function that starts an
epoch, or a line that says why the peer is not available.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from imgtool.bench.ultralytics import load
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import missing
from imgtool.pipelines.shards.beton import BetonReader, BetonWriter

Epoch = Callable[[], Iterable[Any]]
PACKAGES = ("ffcv", "nvidia-dali-cuda130", "torch", "torchvision", "pillow", "pillow-simd", "ultralytics")
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def write_files(data: Dataset, folder: Path) -> None:
    """Writes the training images as folder/train/CLASS/NUMBER.jpg, and all of them into folder/train.beton."""
    readers = [BetonReader(path) for path in data.shards("train")]
    folder.mkdir(parents=True, exist_ok=True)
    beton = BetonWriter(folder / "train.beton", sum(map(len, readers)))
    number = 0
    for reader in readers:
        for position in range(len(reader)):
            label = int(reader.label[position])
            path = folder / "train" / f"{label:04d}" / f"{number:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(reader.read(position))
            beton.add(reader.read(position), int(reader.width[position]), int(reader.height[position]), label)
            number += 1
    beton.close()


def ffcv(files: Path, batch: int, imgsz: int, threads: int) -> Epoch | str:
    """FFCV's loader, set up as in ffcv-imagenet, without the copy to the GPU."""
    if reason := missing("ffcv"):
        return reason
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage

    pipelines = {
        "image": [
            RandomResizedCropRGBImageDecoder((imgsz, imgsz), SCALE, RATIO),
            RandomHorizontalFlip(),
            ToTensor(),
            ToTorchImage(),
        ],
        "label": [IntDecoder(), ToTensor(), Squeeze()],
    }
    loader = Loader(
        str(files / "train.beton"),
        batch,
        threads,
        os_cache=True,
        order=OrderOption.RANDOM,
        seed=0,
        drop_last=True,
        pipelines=pipelines,
    )
    return lambda: loader


def dali(files: Path, batch: int, imgsz: int, threads: int) -> Epoch | str:
    """DALI, set up as in its ImageNet example, with its CPU operators."""
    if reason := missing("dali"):
        return reason
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

    @pipeline_def(batch_size=batch, num_threads=threads, device_id=None, seed=0)
    def pipe() -> Any:
        jpegs, labels = fn.readers.file(file_root=str(files / "train"), random_shuffle=True, name="train")
        images = fn.decoders.image_random_crop(jpegs, random_area=list(SCALE), random_aspect_ratio=list(RATIO))
        images = fn.resize(images, size=(imgsz, imgsz), interp_type=types.INTERP_LINEAR, antialias=True)
        return fn.flip(images, horizontal=fn.random.coin_flip()), labels

    iterator = DALIGenericIterator(
        pipe(), ["images", "labels"], reader_name="train", last_batch_policy=LastBatchPolicy.DROP, auto_reset=True
    )
    return lambda: iterator


def torch(files: Path, batch: int, imgsz: int, threads: int) -> Epoch | str:
    """torch's DataLoader with torchvision's ImageFolder, crop and flip, decoding with Pillow."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose(
        [v2.RandomResizedCrop(imgsz, SCALE, RATIO, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    )
    loader: Any = DataLoader(
        ImageFolder(str(files / "train"), transform),
        batch,
        shuffle=True,
        num_workers=threads,
        drop_last=True,
        persistent_workers=True,
    )
    return lambda: loader


def ultralytics(files: Path, batch: int, imgsz: int, threads: int) -> Epoch | str:
    """Ultralytics' ClassificationDataset and loader, without its RandAugment, colour jitter and erasing."""
    try:
        load(files / "ultralytics")
    except ImportError as error:
        return f"{error}; pip install ultralytics"
    from ultralytics.cfg import get_cfg
    from ultralytics.data import ClassificationDataset
    from ultralytics.data.build import build_dataloader

    options = {"imgsz": imgsz, "scale": 1 - SCALE[0], "auto_augment": None, "erasing": 0.0}
    options |= {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "cache": False, "fliplr": 0.5, "flipud": 0.0}
    dataset = ClassificationDataset(str(files / "train"), args=get_cfg(overrides=options), augment=True)
    loader = build_dataloader(dataset, batch, threads, shuffle=True, rank=-1)
    return lambda: loader


PEERS = (ffcv, dali, torch, ultralytics)
