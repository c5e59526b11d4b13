"""Runs a training from its description (imgtool.training.job): loaders, run directory, network, then the loop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imgtool.pipelines.loaders import open_loader
from imgtool.pipelines.loaders.base import Loader
from imgtool.training.engine import loop
from imgtool.training.engine.setup import Options, Setup
from imgtool.training.evaluation.evaluate import Metrics
from imgtool.training.evaluation.plots.mosaic import BatchMosaics
from imgtool.training.evaluation.splits import VAL_BATCH
from imgtool.training.job import Execution, Job
from imgtool.training.models import losses, registry, yolov8
from imgtool.training.parallel.distributed import World, with_sync_batch_norm
from imgtool.training.runs.loggers import as_list, open_loggers
from imgtool.training.runs.run import Run
from imgtool.wordnet.errors import DatasetError


@contextmanager
def open_loaders(job: Job, execution: Execution, world: World, device: torch.device) -> Iterator[tuple[Loader, Loader]]:
    """Yields this process's loaders of train, augmented as the recipe says, and of its validation split.

    Raises DatasetError if train is smaller than a batch.
    """
    recipe, dataset, batch = job.recipe, job.dataset, job.loader_batch(world)
    common: dict[str, Any] = {"backend": execution.backend, "device": str(device), "num_workers": execution.workers}
    common |= {"seed": job.seed, "rank": world.rank, "world_size": world.size}
    with (
        open_loader(
            dataset,
            "train",
            batch_size=batch,
            image_size=recipe.train_size_at(0),
            scale=(recipe.crop_scale, 1.0),
            hflip=recipe.hflip,
            # a last batch of a few samples upsets batch norm, and one that some processes lack would block the others
            drop_last=world.size > 1 or dataset.num_samples("train") >= batch,
            order=execution.order,
            on_error=execution.on_error,
            **common,
        ) as train,
        open_loader(dataset, job.val_split, batch_size=VAL_BATCH, image_size=recipe.imgsz, **common) as val,
    ):
        if len(train) < recipe.accumulate:
            count = dataset.num_samples("train")
            raise DatasetError(
                f"{dataset.path} has {count} training samples, fewer than --batch {recipe.batch}: give a smaller one"
            )
        yield train, val


def create_run(job: Job, name: str | Path | None, execution: Execution, world: World, device: torch.device) -> Run:
    """Returns the run directory of a new training, which the first process creates."""
    created = Run.create(name, execution.quiet) if world.is_main else None
    path = world.from_main(created.path if created else None)
    run = created or Run(path, execution.quiet, mute=True)
    for note in job.notes:
        run.say(note)
    run.write_settings(job.settings(execution, device, world))
    return run


def reopen_run(run: Run, saved: dict[str, Any], epochs: int) -> Run:
    """Removes results of epochs after the checkpoint, which are trained again; returns the run."""
    run.forget_results_after(saved["epoch"])
    unfinished = saved["resume"]["meters"][0]
    steps = f" and {unfinished['steps']} steps" if unfinished else ""
    run.say(f"resuming after epoch {saved['epoch']}{steps} of {epochs}")
    return run


def build_network(job: Job, outputs: int, rank: int, say: Callable[[str], None]) -> nn.Module:
    """Returns the network of a new training: initialised from the job's seed, or with the weights of a trained model.

    If the classes differ, the last layer is initialised again, and ``say`` logs it.
    """
    torch.manual_seed(job.seed)
    model, recipe = job.model, job.recipe
    network = registry.build(model.size, outputs, recipe.dropout, recipe.drop_path)
    if model.path is not None:
        weights = model.network.state_dict()
        if model.wnids != job.dataset.wnids or model.criterion.outputs != outputs:
            say(f"{model.path} and {job.dataset.path} have different classes: the last layer is initialised again")
            head = registry.head(network) + "."
            weights = {key: value for key, value in weights.items() if not key.startswith(head)}
        network.load_state_dict(weights, strict=False)
    torch.manual_seed(job.seed + rank)  # dropout differs between processes
    return network


def execute(
    job: Job,
    name: str | Path | None,
    execution: Execution,
    world: World,
    on_epoch: Callable[[int, Metrics], None] | None = None,
) -> tuple[Run, Metrics]:
    """Trains, and returns the run and the metrics of the best epoch. ``name`` is the name of a new run.

    Raises what imgtool.training.engine.loop.train raises.
    """
    device, recipe, dataset = execution.resolve_device(world), job.recipe, job.dataset
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
            network = with_sync_batch_norm(network, device.type)
        run.say(
            f"{job.model.size}: {yolov8.count_parameters(network):,} parameters, {dataset.num_classes} classes, "
            f"{dataset.num_samples('train'):,} + {dataset.num_samples(job.val_split):,} images, "
            f"{recipe.epochs} epochs, {job.batch_note(world)}, on {device}, in {run.path}"
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
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                run.say(f"stopped: --resume continues after the last step saved in {run.last}")
            if run.logger is not None:
                run.logger.close()
            raise
    if train_loader.skipped:
        run.say(f"{train_loader.skipped} damaged samples were skipped")
    run.say(f"done: top-1 {best.top1:.2%}, top-5 {best.top5:.2%}; the best weights are in {run.best}")
    world.any(False)  # waits for the first process, which may still be writing
    return run, best
