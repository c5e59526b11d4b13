"""A data set and a loader in memory: what the loop uses, without files and codecs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from imgtool.training import execute, job, recipes
from imgtool.training.evaluation import validation
from imgtool.training.recipes import Recipe
from imgtool.training.runs import plots as run_plots

WNIDS = ["n01440764", "n01443537", "n01484850", "n01491361", "n01494475", "n01496331"]


class MemoryDataset:
    """Coloured squares on noise, one colour per class: the classes are separable."""

    def __init__(self, num_classes: int = 6, train: int = 192, val: int = 96, side: int = 32, seed: int = 0) -> None:
        self.path = Path("memory")
        self.wnids = WNIDS[:num_classes]
        self.names = [f"class {wnid}" for wnid in self.wnids]
        self.num_classes = num_classes
        self.label_map = None
        self.splits = ("train", "val")
        self.fingerprint = f"memory-{num_classes}-{train}-{seed}"
        generator = np.random.default_rng(seed)
        colours = np.array(
            [[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40], [40, 200, 200], [200, 40, 200]]
        )
        self.images: dict[str, Tensor] = {}
        self.labels: dict[str, Tensor] = {}
        for split, count in (("train", train), ("val", val)):
            images = generator.integers(60, 180, (count, side, side, 3))
            labels = generator.integers(0, num_classes, count)
            for image, label in zip(images, labels, strict=True):
                x, y = generator.integers(0, side // 2, 2)
                image[y : y + side // 2, x : x + side // 2] = colours[label]
            self.images[split] = torch.from_numpy(images.astype(np.uint8)).permute(0, 3, 1, 2)
            self.labels[split] = torch.from_numpy(labels)

    def num_samples(self, split: str) -> int:
        return len(self.labels[split])


class MemoryLoader:
    """Batches in an order drawn from (seed, epoch); raises KeyboardInterrupt at ``interrupt_at`` (epoch, batch)."""

    interrupt_at: tuple[int, int] | None = None
    skipped = 0

    def __init__(
        self, dataset: MemoryDataset, split: str, *, batch_size: int, image_size: int, seed: int = 0, **options: Any
    ) -> None:
        self.dataset, self.split, self.batch_size, self.image_size = dataset, split, batch_size, image_size
        self.seed, self.options, self.epoch, self.position = seed, options, 0, 0
        self.sizes_seen: list[int] = []
        self.epochs_seen: list[int] = []

    def __len__(self) -> int:
        rounding = 0 if self.options.get("drop_last") else self.batch_size - 1
        return (self.dataset.num_samples(self.split) + rounding) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.dataset.images[self.split], self.dataset.labels[self.split]
        order = torch.arange(len(labels))
        if self.split == "train":
            generator = torch.Generator().manual_seed(self.seed * 1000 + self.epoch)
            order = torch.randperm(len(labels), generator=generator)
        self.sizes_seen.append(self.image_size)
        self.epochs_seen.append(self.epoch)
        for i in range(self.position, len(self)):
            if self.split == "train" and self.interrupt_at == (self.epoch, i):
                raise KeyboardInterrupt
            chosen = order[i * self.batch_size : (i + 1) * self.batch_size]
            batch = torch.nn.functional.interpolate(images[chosen], size=(self.image_size, self.image_size))
            self.position = i + 1
            yield batch.contiguous(memory_format=torch.channels_last), labels[chosen]
        self.position = 0

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "batch": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.position = state["epoch"], state["batch"]

    def close(self) -> None:
        pass

    def __enter__(self) -> "MemoryLoader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from a second thread, and its barriers are slow on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


DRAW_PLOTS = run_plots.draw_plots


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests do not use plots, which take longer to draw than such small networks take to train."""
    monkeypatch.setattr(run_plots, "draw_plots", lambda *_: None)


@pytest.fixture
def plots(no_plots: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws plots at the end of a training again, for tests that use them."""
    monkeypatch.setattr(run_plots, "draw_plots", DRAW_PLOTS)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryDataset:
    """`Classifier` reads this data set whatever path it is given; runs/ is in a new temporary folder."""
    dataset = MemoryDataset()
    monkeypatch.chdir(tmp_path)
    for module in (validation, job):
        monkeypatch.setattr(module, "Dataset", lambda _path, _labelmap=None: dataset)
    for module in (validation, execute):
        monkeypatch.setattr(module, "open_loader", MemoryLoader)
    monkeypatch.setattr(MemoryLoader, "interrupt_at", None)
    return dataset


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    return lambda epoch, batch: monkeypatch.setattr(MemoryLoader, "interrupt_at", (epoch, batch))


@pytest.fixture
def make_dataset() -> type[MemoryDataset]:
    return MemoryDataset


@pytest.fixture
def make_loader() -> type[MemoryLoader]:
    return MemoryLoader


@pytest.fixture
def toy_recipe() -> Recipe:
    """Six short epochs at 32 pixels, with dropout, so that the random state matters."""
    return recipes.load("n").override(epochs=6, batch=32, imgsz=32, dropout=0.1, label_smoothing=0.1)
