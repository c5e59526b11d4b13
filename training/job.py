"""One training: what it consists of (`Job`), how it is executed (`Execution`), and `execute`, which does it.

The epochs are imgtool.training.engine.loop.
"""

import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import open_loader
from imgtool.pipelines.loaders.base import Loader
from imgtool.training import recipes
from imgtool.training.checkpoints import checkpoint
from imgtool.training.engine import loop
from imgtool.training.engine.setup import Options, Setup
from imgtool.training.evaluation.evaluate import Metrics
from imgtool.training.evaluation.plots.mosaic import BatchMosaics
from imgtool.training.evaluation.splits import DATA, VAL_BATCH, check_splits
from imgtool.training.models import losses, registry, yolov8
from imgtool.training.models.trained import TrainedModel
from imgtool.training.parallel.device import resolve_device
from imgtool.training.parallel.distributed import World, agent, synced
from imgtool.training.recipes import Recipe
from imgtool.training.runs.loggers import Loggers, as_list, open_loggers
from imgtool.training.runs.run import Run
from imgtool.training.runtimes.trained import from_checkpoint
from imgtool.wordnet.errors import CheckpointError, DatasetError, InputError
from imgtool.wordnet.graph.label_map import LabelMap


@dataclass(frozen=True)
class Execution:
    """How a training is executed: hardware, loader, files. What it learns is decided by the recipe, but for ``order``
    and ``precision``.

    ``backend``, ``order``, ``on_error`` and ``workers`` are the loader's (imgtool.pipelines.loaders.open_loader);
    ``compile``, ``on_nan``, ``save_steps``, ``keep`` and ``profile`` are those of imgtool.training.engine.loop.Options.
    """

    device: str | None = None  # auto, cpu, cuda, cuda:1 or 1
    workers: int | None = None
    backend: str = "auto"
    order: str = "random"
    on_error: str = "raise"
    precision: str = "auto"
    compile: bool = True
    sync_bn: bool = False  # batch norm over the batches of all processes
    on_nan: str = "stop"
    save_steps: int = 0
    keep: int = 2
    profile: bool = False
    logger: Loggers = None  # tensorboard, wandb, a `Logger`, or a list of these
    plots: bool = True  # first batches, curves, error analysis
    quiet: bool = False

    @classmethod
    def split(cls, options: dict[str, Any]) -> "tuple[Execution, dict[str, Any]]":
        """The options that are fields of an Execution as one, and the others, which are the recipe's.

        Raises InputError for a logger that cannot be used.
        """
        names = {field.name for field in fields(cls)}
        execution = cls(**{name: value for name, value in options.items() if name in names})
        as_list(execution.logger)
        return execution, {name: value for name, value in options.items() if name not in names}

    def place(self, world: World) -> torch.device:
        """The device of this process: of several on CUDA each has its own GPU."""
        device = resolve_device(self.device)
        return torch.device("cuda", world.local_rank) if world.size > 1 and device.type == "cuda" else device


@dataclass(frozen=True)
class Job:
    """One training. ``run`` and ``saved`` (the content of its latest checkpoint) are a resumed training's, and None for
    a new one. ``notes`` are lines for the log of the run."""

    recipe: Recipe
    dataset: Dataset
    seed: int
    model: TrainedModel  # whose network or weights the training starts from
    run: Run | None = None
    saved: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    precision: str = "auto"
    sync_bn: bool = False

    @property
    def finished(self) -> Metrics | None:
        """The metrics of the best epoch, if all epochs are done."""
        if self.saved is None or self.saved["epoch"] < self.recipe.epochs:
            return None
        return Metrics(**self.saved["resume"]["best"])

    def loader_batch(self, world: World) -> int:
        """Samples per batch of one process's loader. Raises InputError where the recipe's batch cannot be divided."""
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

    def settings(self, execution: Execution, device: torch.device, world: World) -> dict[str, Any]:
        """The content of run.json."""
        labelmap = self.dataset.labelmap
        on_gpu = device.type == "cuda"
        return {
            "argv": sys.argv,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "size": self.model.size,
            "weights": str(self.model.path) if self.model.path else None,
            "recipe": self.recipe.to_dict(),
            "data": str(self.dataset.path.absolute()),
            "labelmap": labelmap.to_dict() if labelmap else None,
            "fingerprint": self.dataset.fingerprint,
            "seed": self.seed,
            "device": torch.cuda.get_device_name(device) if on_gpu else f"{device} ({platform.machine()})",
            "precision": self.precision,
            "sync_bn": self.sync_bn,
            "processes": world.size,
            "torchrun": agent() if world.size > 1 else None,
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
) -> Job:
    """A new training. Without a batch in ``overrides`` a small data set gets a smaller one than the recipe's."""
    if recipe is None and model.size not in recipes.names():
        recipe = recipes.OTHERS
    plan = recipe if isinstance(recipe, Recipe) else recipes.load(recipe if recipe is not None else model.size)
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
    seed = 0 if seed is None else seed
    return Job(plan, dataset, seed, model, notes=notes, precision=execution.precision, sync_bn=execution.sync_bn)


def resumed(
    run: Run,
    data: str | Path | None = None,
    recipe: Any = None,
    seed: int | None = None,
    overrides: dict[str, Any] | None = None,
) -> Job:
    """The training of a run, from its latest whole checkpoint. A resumed run keeps its settings: InputError for one
    that is asked to be another, DatasetError for other data."""
    settings, saved = run.read_settings(), run.load_last()
    plan = recipes.from_dict(saved["recipe"])
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
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
    return Job(
        plan,
        dataset,
        settings["seed"],
        from_checkpoint(run.last, saved),
        run,
        saved,
        precision=settings["precision"],
        sync_bn=settings["sync_bn"],
    )


def restarted(name: str | Path | None, world: World) -> bool:
    """Whether torchrun has restarted this training after a process died, and a checkpoint had been saved before."""
    if not world.restarts:
        return False
    try:
        settings = Run.reopen(name).read_settings()
    except CheckpointError:
        return False
    return bool(settings.get("torchrun") == agent())


@contextmanager
def open_loaders(job: Job, execution: Execution, world: World, device: torch.device) -> Iterator[tuple[Loader, Loader]]:
    """This process's loaders of train, as the recipe has it, and of val. Raises DatasetError where train is smaller
    than a batch."""
    plan, dataset, batch = job.recipe, job.dataset, job.loader_batch(world)
    common: dict[str, Any] = {"backend": execution.backend, "device": str(device), "num_workers": execution.workers}
    common |= {"seed": job.seed, "rank": world.rank, "world_size": world.size}
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
            order=execution.order,
            on_error=execution.on_error,
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


def create_run(job: Job, name: str | Path | None, execution: Execution, world: World, device: torch.device) -> Run:
    """The directory of a new training; of several processes the first one makes it."""
    created = Run.create(name, execution.quiet) if world.is_main else None
    path = world.first(created.path if created else None)
    run = created or Run(path, execution.quiet, mute=True)
    for note in job.notes:
        run.say(note)
    run.write_settings(job.settings(execution, device, world))
    return run


def reopen_run(run: Run, saved: dict[str, Any], epochs: int) -> Run:
    """The directory of a resumed training, without results that its checkpoint does not know."""
    run.forget_results_after(saved["epoch"])
    part = saved["resume"]["meters"][0]
    steps = f" and {part['steps']} steps" if part else ""
    run.say(f"resuming after epoch {saved['epoch']}{steps} of {epochs}")
    return run


def build_network(job: Job, outputs: int, rank: int, say: Callable[[str], None]) -> nn.Module:
    """The network of a new training: from the job's seed, and with the model's weights where it has been trained."""
    torch.manual_seed(job.seed)
    model, recipe = job.model, job.recipe
    network = registry.build(model.size, outputs, recipe.dropout, recipe.drop_path)
    if model.path is not None:
        weights = model.network.state_dict()
        if model.wnids != job.dataset.wnids or model.criterion.outputs != outputs:
            say(f"the classes of {model.path} are not those of {job.dataset.path}: the last layer starts anew")
            head = registry.head(network) + "."
            weights = {key: value for key, value in weights.items() if not key.startswith(head)}
        network.load_state_dict(weights, strict=False)
    torch.manual_seed(job.seed + rank)  # each process drops out its own
    return network


def execute(
    job: Job,
    name: str | Path | None,
    execution: Execution,
    world: World,
    on_epoch: Callable[[int, Metrics], None] | None = None,
) -> tuple[Run, Metrics]:
    """Does the training; returns its run and the metrics of the best epoch. ``name`` is that of a new run.

    Raises what imgtool.training.engine.loop.train raises.
    """
    device, recipe, dataset = execution.place(world), job.recipe, job.dataset
    criterion = losses.from_spec(recipe.loss, dataset.wnids, recipe.label_smoothing)
    with open_loaders(job, execution, world, device) as (train_loader, val_loader):
        if job.run is None or job.saved is None:
            run = create_run(job, name, execution, world, device)
            network = build_network(job, criterion.outputs, world.rank, run.say)
        else:
            run, network = reopen_run(job.run, job.saved, recipe.epochs), job.model.network
        if world.is_main:
            done, settings = run.epochs_in_results(), run.read_settings()
            run.logger = open_loggers(as_list(execution.logger), run.path, settings, done, run.say)
        if job.sync_bn:
            network = synced(network, device.type)
        run.say(
            f"{job.model.size}: {yolov8.count_parameters(network):,} parameters, {dataset.num_classes} classes, "
            f"{dataset.num_samples('train'):,} + {dataset.num_samples('val'):,} images, {recipe.epochs} epochs, "
            f"{job.batch_note(world)}, on {device}, in {run.path}"
        )
        setup = Setup(
            network, job.model.size, recipe, criterion, dataset.wnids, dataset.names, train_loader, val_loader
        )
        options = Options(
            seed=job.seed,
            precision=job.precision,
            compile=execution.compile,
            on_nan=execution.on_nan,
            save_steps=execution.save_steps,
            keep=execution.keep,
            profile=execution.profile,
            on_epoch=on_epoch,
            on_batch=BatchMosaics(run.path, dataset.names, run.say) if execution.plots and world.is_main else None,
            world=world,
        )
        try:
            best = loop.train(setup, run, device, options, job.saved)
        except KeyboardInterrupt:
            run.say(f"stopped: --resume goes on behind the last step that {run.last} holds")
            raise
    if train_loader.skipped:
        run.say(f"{train_loader.skipped} damaged samples were left out of batches")
    run.say(f"done: top-1 {best.top1:.2%}, top-5 {best.top5:.2%}; the best weights are {run.best}")
    world.any(False)  # the first process may still be writing them
    return run, best
