"""The description of one training: what it consists of (`Job`) and how it is executed (`Execution`)."""

import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from imgtool.pipelines.dataset import Dataset
from imgtool.training import recipes
from imgtool.training.checkpoints import checkpoint
from imgtool.training.engine.step import autocast_type
from imgtool.training.evaluation.evaluate import Metrics
from imgtool.training.evaluation.splits import DATA, check_labelled, check_splits
from imgtool.training.models.trained import TrainedModel
from imgtool.training.models.yolov8 import STRIDE
from imgtool.training.parallel.device import resolve_device
from imgtool.training.parallel.distributed import World, launcher_id
from imgtool.training.recipes import Recipe
from imgtool.training.runs.loggers import Loggers, as_list
from imgtool.training.runs.run import Run
from imgtool.training.runtimes.trained import from_checkpoint
from imgtool.wordnet.errors import CheckpointError, DatasetError, InputError
from imgtool.wordnet.graph.label_map import LabelMap


@dataclass(frozen=True)
class Execution:
    """How a training is executed: hardware, loader, files. Apart from rounding and skipped samples or steps, only
    ``order``, ``precision`` and ``sync_bn`` influence the weights; the other fields do not.

    ``backend``, ``order``, ``on_error`` and ``workers`` are options of imgtool.pipelines.loaders.open_loader;
    ``precision``, ``compile``, ``on_nan``, ``save_steps``, ``keep`` and ``profile`` are fields of
    imgtool.training.engine.setup.Options.
    """

    device: str | None = None  # auto, cpu, cuda, cuda:1 or 1
    workers: int | None = None
    backend: str = "auto"
    order: str = "random"
    on_error: str = "raise"
    precision: str = "auto"
    compile: bool = True
    sync_bn: bool = False  # batch norm statistics over the batches of all processes
    on_nan: str = "stop"
    save_steps: int = 0
    keep: int = 2
    profile: bool = False
    logger: Loggers = None  # tensorboard, wandb, a `Logger`, or a list of these
    plots: bool = True  # draw the first batches, curves and the error analysis
    quiet: bool = False
    argv: Sequence[str] | None = None  # command line for run.json; None: sys.argv

    @classmethod
    def split(cls, options: dict[str, Any]) -> "tuple[Execution, dict[str, Any]]":
        """Returns an Execution of those options that are its fields, and the other options, which are the recipe's.

        Raises InputError for an unknown logger or precision.
        """
        names = {field.name for field in fields(cls)}
        execution = cls(**{name: value for name, value in options.items() if name in names})
        as_list(execution.logger)
        autocast_type(execution.precision, torch.device("cpu"))
        return execution, {name: value for name, value in options.items() if name not in names}

    def resolve_device(self, world: World) -> torch.device:
        """Returns the device of this process; each of several processes on CUDA has its own GPU."""
        device = resolve_device(self.device)
        return torch.device("cuda", world.local_rank) if world.size > 1 and device.type == "cuda" else device


@dataclass(frozen=True)
class Job:
    """What one training consists of. ``notes`` are lines for the log of the run.

    A resumed training has its ``run`` and ``saved``, the content of its latest checkpoint; both are None for a new one.
    """

    recipe: Recipe
    dataset: Dataset
    seed: int
    model: TrainedModel  # the training starts from its weights, or from random ones if its path is None
    run: Run | None = None
    saved: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    precision: str = "auto"
    sync_bn: bool = False
    val_split: str = "val"  # the split that is measured after each epoch

    @property
    def finished(self) -> Metrics | None:
        """The metrics of the best epoch if all epochs are done, else None."""
        if self.saved is None or self.saved["epoch"] < self.recipe.epochs:
            return None
        return Metrics(**self.saved["resume"]["best"])

    def loader_batch(self, world: World) -> int:
        """Returns the samples per micro-batch. Raises InputError if the recipe's batch cannot be divided evenly."""
        micro_batches = self.recipe.accumulate * world.size
        if self.recipe.batch % micro_batches:
            raise InputError(
                f"batch {self.recipe.batch} cannot be divided among {world.size} processes × {self.recipe.accumulate} "
                f"micro-batches: give a --batch that is a multiple of {micro_batches}"
            )
        return self.recipe.batch // micro_batches

    def batch_note(self, world: World) -> str:
        """Describes how a step's batch is divided, and the learning rate that follows from it."""
        recipe = self.recipe
        processes = f"{world.size} processes × " if world.size > 1 else ""
        accumulated = f"{recipe.accumulate} micro-batches × " if recipe.accumulate > 1 else ""
        division = f" ({processes}{accumulated}{self.loader_batch(world)})" if processes or accumulated else ""
        return f"batch {recipe.batch}{division}, peak lr {recipe.peak_lr:g}"

    def settings(self, execution: Execution, device: torch.device, world: World) -> dict[str, Any]:
        """Returns the content of run.json."""
        labelmap = self.dataset.label_map
        on_gpu = device.type == "cuda"
        return {
            "argv": list(execution.argv or sys.argv),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "size": self.model.size,
            "weights": str(self.model.path) if self.model.path else None,
            "recipe": self.recipe.to_dict(),
            "data": str(self.dataset.path.absolute()),
            "labelmap": labelmap.to_dict() if labelmap else None,
            "fingerprint": self.dataset.fingerprint,
            "val_split": self.val_split,
            "seed": self.seed,
            "device": torch.cuda.get_device_name(device) if on_gpu else f"{device} ({platform.machine()})",
            "precision": self.precision,
            "sync_bn": self.sync_bn,
            "processes": world.size,
            "torchrun": launcher_id() if world.size > 1 else None,
            "backend": execution.backend,
            "workers": execution.workers,
            "versions": {
                "imgtool": checkpoint.version(),
                "python": platform.python_version(),
                "torch": torch.__version__,
            },
        }


def new(
    model: TrainedModel,
    data: str | Path | None,
    recipe: str | Path | Recipe | None,
    labelmap: LabelMap | None,
    seed: int | None,
    overrides: dict[str, Any],
    execution: Execution,
    val_split: str | None = None,
) -> Job:
    """Returns a new training. Without ``batch`` in ``overrides``, a small data set gets a smaller batch than the
    recipe's.

    Raises InputError for a ``batch`` larger than the training split.
    """
    if recipe is None:
        recipe = model.size if model.size in recipes.names() else recipes.DEFAULT
    settings = recipe if isinstance(recipe, Recipe) else recipes.load(recipe)
    settings = settings.override(**overrides)
    dataset = Dataset(data if data is not None else DATA, labelmap)
    val_split = val_split or "val"
    check_splits(dataset, "train", val_split)
    if val_split != "val":
        check_labelled(dataset, val_split)
    if settings.label_smoothing and not settings.loss.startswith("ce"):
        settings = settings.override(label_smoothing=0.0)  # only cross-entropy has it; run.json records what was used
    notes: tuple[str, ...] = ()
    samples = dataset.num_samples("train")
    if overrides.get("batch") is not None and settings.batch > samples:
        raise InputError(
            f"--batch {settings.batch:,} is larger than the training split of {dataset.path}, which has {samples:,} "
            "samples: give a smaller batch"
        )
    if overrides.get("batch") is None:
        before, settings = settings.batch, settings.fit_batch(samples)
        if settings.batch != before:
            notes = (
                f"batch {settings.batch} instead of {before}, because the data set is small; --batch overrides it",
            )
    _check_batch_norm(dataset, settings, samples)
    seed = 0 if seed is None else seed
    return Job(
        settings,
        dataset,
        seed,
        model,
        notes=notes,
        precision=execution.precision,
        sync_bn=execution.sync_bn,
        val_split=val_split,
    )


def _check_batch_norm(dataset: Dataset, recipe: Recipe, samples: int) -> None:
    """Raises DatasetError or InputError where batch norm would have one value per channel, which has no variance."""
    if samples < 2:
        raise DatasetError(f"{dataset.path}: train has only one image; training needs at least 2")
    size = min([recipe.imgsz, *(size for _, size in recipe.progressive)])
    if recipe.batch == recipe.accumulate and size < 2 * STRIDE:
        raise InputError(
            f"one image of {size} x {size} pixels per micro-batch is too little for batch norm: give a larger --batch, "
            f"or --imgsz {2 * STRIDE}"
        )


def resumed(
    run: Run,
    data: str | Path | None = None,
    recipe: Any = None,
    seed: int | None = None,
    overrides: dict[str, Any] | None = None,
    execution: Execution | None = None,
    labelmap: LabelMap | None = None,
    val_split: str | None = None,
) -> Job:
    """Returns the training of a run, to be resumed from its latest undamaged checkpoint.

    A resumed run keeps its settings. Raises InputError for a recipe, seed, override, label map, split, precision or
    sync_bn that differs from them, DatasetError for another data set.
    """
    settings = run.read_settings("seed", "precision", "sync_bn", "labelmap", "data", "fingerprint")
    saved = run.load_last()
    saved_recipe = recipes.from_dict(saved["recipe"])
    saved_recipe.override(**(overrides or {}))  # raises InputError for unknown settings and bad values
    before = saved_recipe.to_dict() | {key: settings[key] for key in ("seed", "precision", "sync_bn")}
    before["val_split"] = settings.get("val_split", "val")
    given = {"seed": seed, "val_split": val_split, **(overrides or {})}
    for key in ("precision", "sync_bn"):  # a default is not a request
        if execution is not None and getattr(execution, key) != getattr(Execution(), key):
            given[key] = getattr(execution, key)
    for key, value in given.items():
        if value is not None and value != before[key]:
            raise InputError(
                f"cannot resume {run.path} with {key}={value}: the run was started with {key}={before[key]}"
            )
    if recipe is not None:
        raise InputError(
            f"cannot resume {run.path} with recipe={recipe}: a resumed run keeps the recipe in its run.json"
        )
    if labelmap is not None and labelmap.to_dict() != settings["labelmap"]:
        raise InputError(f"cannot resume {run.path} with this label map: the run was started with another one or none")
    labelmap = LabelMap.from_dict(settings["labelmap"]) if settings["labelmap"] else None
    dataset = Dataset(data if data is not None else settings["data"], labelmap)
    if dataset.fingerprint != settings["fingerprint"]:
        raise DatasetError(f"cannot resume {run.path} on {dataset.path}: the run was started on another data set")
    if saved["resume"] is None:
        raise CheckpointError(f"cannot resume from {run.last}: it has weights only, without the state of a training")
    return Job(
        saved_recipe,
        dataset,
        settings["seed"],
        from_checkpoint(run.last, saved),
        run,
        saved,
        precision=settings["precision"],
        sync_bn=settings["sync_bn"],
        val_split=before["val_split"],
    )


def restarted(name: str | Path | None, world: World) -> bool:
    """Whether torchrun restarted this training after a process died, and the training had saved a checkpoint."""
    if not world.restarts:
        return False
    try:
        settings = Run.reopen(name).read_settings()
    except CheckpointError:
        return False
    return bool(settings.get("torchrun") == launcher_id())
