"""What a training begins with: recipe, data and seed, from the caller or from the run that is resumed."""

import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import open_loader
from imgtool.pipelines.loaders.base import Loader
from imgtool.training import recipes
from imgtool.training.checkpoints import checkpoint
from imgtool.training.parallel.distributed import World, agent
from imgtool.training.recipes import Recipe
from imgtool.training.runs.run import Run
from imgtool.wordnet.errors import CheckpointError, DatasetError, InputError
from imgtool.wordnet.relabel import LabelMap

DATA = "data/imagenet"
VAL_BATCH = 256  # images at a time where no gradients are kept


@dataclass
class Start:
    """``run`` and ``saved`` (its latest checkpoint's content) are a resumed training's, None for a new one. ``notes``
    are to be said once there is a run."""

    recipe: Recipe
    dataset: Dataset
    seed: int
    run: Run | None = None
    saved: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    precision: str = "auto"
    sync_bn: bool = False

    @property
    def is_finished(self) -> bool:
        return self.saved is not None and self.saved["epoch"] >= self.recipe.epochs

    def loader_batch(self, world: World) -> int:
        """Samples a batch of one process's loader. Raises InputError where the recipe's batch cannot be shared out."""
        parts = self.recipe.accumulate * world.size
        if self.recipe.batch % parts:
            raise InputError(
                f"a batch of {self.recipe.batch} cannot be shared by {world.size} processes in "
                f"{self.recipe.accumulate} parts: give a --batch that {parts} divides"
            )
        return self.recipe.batch // parts

    def batch_note(self, world: World) -> str:
        """How a step's batch is made up, and the learning rate that follows from it."""
        recipe = self.recipe
        processes = f"{world.size} processes × " if world.size > 1 else ""
        parts = f"{recipe.accumulate} parts × " if recipe.accumulate > 1 else ""
        made_of = f" ({processes}{parts}{self.loader_batch(world)})" if processes or parts else ""
        return f"batch {recipe.batch}{made_of}, peak lr {recipe.peak_lr:g}"


def fresh(
    size: str,
    data: str | Path | None,
    recipe: str | Path | Recipe | None,
    labelmap: LabelMap | None,
    seed: int | None,
    overrides: dict[str, Any],
) -> Start:
    """A new training. Without a batch of its own a small data set gets a smaller one than the recipe's."""
    if recipe is None and size not in recipes.names():
        recipe = recipes.OTHERS
    plan = recipe if isinstance(recipe, Recipe) else recipes.load(recipe if recipe is not None else size)
    plan = plan.override(**overrides)
    dataset = Dataset(data if data is not None else DATA, labelmap)
    check_splits(dataset, "train", "val")
    if plan.label_smoothing and not plan.loss.startswith("ce"):
        plan = plan.override(label_smoothing=0.0)  # it is cross-entropy's; run.json says what was done
    notes: tuple[str, ...] = ()
    if overrides.get("batch") is None:
        before, plan = plan.batch, plan.fit_batch(dataset.num_samples("train"))
        if plan.batch != before:
            notes = (f"batch {plan.batch} instead of {before}, the data set being small; --batch sets it",)
    return Start(plan, dataset, 0 if seed is None else seed, notes=notes)


def resumed(
    run: Run,
    data: str | Path | None,
    recipe: Any,
    seed: int | None,
    overrides: dict[str, Any],
) -> Start:
    """The training of a run, from its latest whole checkpoint. A resumed run keeps its settings: InputError for one
    that is asked to be another, DatasetError for other data."""
    settings, saved = run.read_settings(), run.load_last()
    plan = recipes.from_dict(saved["recipe"])
    given = {key: value for key, value in overrides.items() if value is not None}
    changed = {key: value for key, value in given.items() if plan.to_dict().get(key) != value}
    if recipe is not None:
        changed["recipe"] = recipe
    if seed is not None and seed != settings["seed"]:
        changed["seed"] = seed
    if changed:
        key, value = next(iter(changed.items()))
        raise InputError(f"{run.path} cannot go on with {key} {value}: a resumed run keeps its settings (run.json)")
    gathered = LabelMap.from_dict(settings["labelmap"]) if settings["labelmap"] else None
    dataset = Dataset(data if data is not None else settings["data"], gathered)
    if dataset.fingerprint != settings["fingerprint"]:
        raise DatasetError(f"{dataset.path} is not the data set that {run.path} was trained on")
    if saved["resume"] is None:
        raise CheckpointError(f"{run.last} is a checkpoint for use: there is nothing in it to resume from")
    return Start(
        plan, dataset, settings["seed"], run, saved, precision=settings["precision"], sync_bn=settings["sync_bn"]
    )


def restarted(name: str | Path | None, world: World) -> bool:
    """Whether torchrun has started this training anew and it had come to a checkpoint before."""
    if not world.restarts:
        return False
    try:
        settings = Run.reopen(name).read_settings()
    except CheckpointError:
        return False
    return bool(settings.get("torchrun") == agent())


@contextmanager
def open_loaders(
    begin: Start,
    world: World,
    device: torch.device,
    workers: int | None,
    backend: str,
    order: str,
    on_error: str,
) -> Iterator[tuple[Loader, Loader]]:
    """This process's loaders of train, as the recipe has it, and of val. Raises DatasetError where train is smaller
    than a batch."""
    plan, dataset, batch = begin.recipe, begin.dataset, begin.loader_batch(world)
    common: dict[str, Any] = {"backend": backend, "device": str(device), "num_workers": workers}
    common |= {"seed": begin.seed, "rank": world.rank, "world_size": world.size}
    with (
        open_loader(
            dataset,
            "train",
            batch_size=batch,
            image_size=plan.train_size_at(0),
            scale=(plan.crop_scale, 1.0),
            hflip=plan.hflip,
            # a last batch of a few upsets batch norm; for one that some processes lack the others would wait
            drop_last=world.size > 1 or dataset.num_samples("train") >= batch,
            order=order,
            on_error=on_error,
            **common,
        ) as train,
        open_loader(dataset, "val", batch_size=VAL_BATCH, image_size=plan.imgsz, **common) as val,
    ):
        if len(train) < plan.accumulate:
            count = dataset.num_samples("train")
            raise DatasetError(
                f"{dataset.path}: {count} samples make no whole batch of {plan.batch}: give a smaller --batch"
            )
        yield train, val


def check_splits(dataset: Dataset, *splits: str) -> None:
    for split in splits:
        if split not in dataset.splits:
            raise DatasetError(f"{dataset.path} has no split {split!r}, only {', '.join(dataset.splits)}")
        if dataset.num_samples(split) == 0:
            raise DatasetError(f"the split {split!r} of {dataset.path} is empty")


def settings(
    size: str, weights: Path | None, start: Start, device: torch.device, world: World, **chosen: Any
) -> dict[str, Any]:
    """run.json's content; ``chosen`` is what the caller chose besides."""
    labelmap = start.dataset.labelmap
    return {
        "argv": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "size": size,
        "weights": str(weights) if weights else None,
        "recipe": start.recipe.to_dict(),
        "data": str(start.dataset.path.absolute()),
        "labelmap": labelmap.to_dict() if labelmap else None,
        "fingerprint": start.dataset.fingerprint,
        "seed": start.seed,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({platform.machine()})",
        "precision": start.precision,
        "sync_bn": start.sync_bn,
        "processes": world.size,
        "torchrun": agent() if world.size > 1 else None,
        **chosen,
        "versions": {"imgtool": checkpoint.version(), "python": platform.python_version(), "torch": torch.__version__},
    }
