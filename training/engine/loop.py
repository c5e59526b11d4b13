"""The training loop: batches in, checkpoints out. It reads from `train` downwards.

Every step is enqueued without waiting for the device: nothing in it reads a tensor's value. The losses are kept on the
device and read at the log points, which is also where one that is no longer a number is noticed.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from imgtool.training.checkpoints import checkpoint
from imgtool.training.engine.ema import EMA
from imgtool.training.engine.meters import Meter, Progress, peak_flops
from imgtool.training.engine.profiler import Profile
from imgtool.training.engine.signals import Stop
from imgtool.training.engine.step import Part, Step, compiled, make_loss, make_optimizer, make_scaler, set_lr
from imgtool.training.evaluation.evaluate import Metrics, evaluate
from imgtool.training.models import registry
from imgtool.training.models.losses import Loss
from imgtool.training.parallel.distributed import World, replicated
from imgtool.training.recipes import Recipe
from imgtool.training.recipes.augment import Mixed, augment
from imgtool.training.runs.run import Run
from imgtool.training.runtimes.native import Native

STOP_CHECK = 8  # steps between two looks at whether another process has been told to stop


class Loader(Protocol):
    """What the loop needs of a loader (imgtool.pipelines.loaders): an iteration is the rest of an epoch, in batches on
    the device, images uint8 [N, 3, H, W] channels_last, labels int64 [N]; ``image_size`` may change between epochs."""

    image_size: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...
    def __len__(self) -> int: ...
    def set_epoch(self, epoch: int) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Classes:
    wnids: list[str]
    names: list[str]


@dataclass(frozen=True)
class Options:
    """How a recipe is run; but for the seed and what the hardware rounds, the weights do not depend on these."""

    seed: int = 0  # of the batches' augmentation
    precision: str = "auto"  # auto (bf16 on CUDA from Ampere on, else fp32), bf16, fp16, fp32
    compile: bool = True  # through torch.compile, on CUDA
    on_nan: str = "stop"  # or skip: steps whose loss or gradient is no number are left out and counted; waits each step
    save_steps: int = 0  # a checkpoint every so many steps, besides each epoch's end
    keep: int = 2  # checkpoints kept, the latest first
    profile: bool = False
    log_every: int = 50  # steps between two lines within an epoch
    on_epoch: Callable[[int, Metrics], None] | None = None  # (epochs done, metrics), after each
    on_batch: Callable[[int, int, Tensor, Tensor, Mixed | None], None] | None = None  # (epoch, step, …) as trained on
    world: World = field(default_factory=World)


def train(
    model: nn.Module,
    recipe: Recipe,
    classes: Classes,
    train_loader: Loader,
    val_loader: Loader,
    run: Run,
    device: torch.device,
    criterion: Loss,
    options: Options | None = None,
    resume: dict[str, Any] | None = None,
    size: str = "n",
) -> Metrics:
    """Trains ``model`` in place by ``recipe`` and returns the best epoch's metrics on ``val_loader``.

    ``criterion`` is a loss of imgtool.training.models.losses. Validated and kept are the averaged (EMA) weights. After
    every epoch ``run`` has one more line in results.csv, a new last.pt, and a new best.pt where top-1 is the highest so
    far (the later of equals). ``resume`` is last.pt's content: training goes on behind its last step as if it had never
    stopped. ``size`` is what the checkpoints call the model.

    SIGINT and SIGTERM raise Interrupted, a KeyboardInterrupt, behind a whole step that last.pt holds. Raises
    TrainingError, naming epoch and step, when the loss is no longer a number.
    """
    options = options or Options()
    trainer = Trainer(model, recipe, classes, train_loader, val_loader, run, device, criterion, options, size)
    trainer.start(resume)
    world, progress = options.world, trainer.state.progress
    with Stop(patient=world.size > 1) as stop, Profile(run, device, options.profile) as profile:
        for epoch in range(progress.epochs, recipe.epochs):
            meter = trainer.train_epoch(epoch, stop, profile)
            trainer.end_epoch(epoch, meter)
            if epoch + 1 < recipe.epochs and world.any(stop.signal is not None):
                raise stop.error
    assert progress.best is not None  # a recipe has at least one epoch
    return progress.best


class Trainer:
    """One training at work: the network, its optimiser and its files, an epoch at a time."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        classes: Classes,
        train_loader: Loader,
        val_loader: Loader,
        run: Run,
        device: torch.device,
        criterion: Loss,
        options: Options,
        size: str,
    ) -> None:
        self.recipe, self.run, self.device, self.options = recipe, run, device, options
        self.train_loader, self.val_loader = train_loader, val_loader
        self.steps = len(train_loader) // recipe.accumulate  # per epoch
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.criterion = criterion.to(device)
        self.optimizer, scaler = make_optimizer(model, recipe, device), make_scaler(options.precision, device)
        self.ema = EMA(model, recipe.ema_decay(self.steps))
        network = replicated(model) if options.world.size > 1 else model
        loss_of = make_loss(network, self.criterion, device, options.precision)
        if options.compile:
            loss_of = compiled(loss_of, device, run.say, model)
        skips = options.on_nan == "skip"
        self.step = Step(loss_of, network, self.optimizer, self.ema, scaler, recipe.clip, skips)
        progress = Progress(recipe)
        self.state = State(model, self.optimizer, scaler, self.ema, progress, train_loader, options.world)
        self.saver = Saver(run, recipe, classes, self.state, size, options.keep)
        self.unfinished: dict[str, Any] | None = None  # the meter of an epoch that was stopped in its middle
        # counting traces a copy of the model: once per size, and only where MFU can be told
        self.flops_at = functools.cache(lambda side: registry.flops(model, side) if peak_flops(device) else 0)
        torch.backends.cudnn.benchmark = True  # shapes stay the same for epochs: let cuDNN time its algorithms once

    def start(self, resume: dict[str, Any] | None) -> None:
        """Takes over a checkpoint's content, or saves the first one, from which --resume works."""
        if resume:
            self.unfinished = self.state.restore(resume)
        else:
            self.saver.save(None)
        self.state.progress.start(self.unfinished["steps"] / self.steps if self.unfinished else 0.0)

    def train_epoch(self, epoch: int, stop: Stop, profile: Profile) -> Meter:
        """Trains one epoch, or the rest of one. Raises Interrupted after a step that is saved, when a signal came."""
        loader, options, recipe, steps = self.train_loader, self.options, self.recipe, self.steps
        loader.set_epoch(epoch)
        loader.image_size = recipe.train_size_at(epoch)
        self.model.train()
        meter = Meter(self.device, options.world, self.flops_at(loader.image_size), options.log_every)
        if self.unfinished:
            meter.load_state_dict(self.unfinished)
            self.unfinished = None
        for group in meter.watch(loader, recipe.accumulate):
            i = meter.steps + 1
            lr = set_lr(self.optimizer, recipe.lr_at(epoch * steps + i - 1, steps))
            parts = [self.augmented(batch, epoch, i, part) for part, batch in enumerate(group)]
            if options.on_batch:
                options.on_batch(epoch, i, *parts[0])
            loss = self.step(parts)
            if loss is None:
                meter.skip()
            else:
                meter.count(loss, sum(len(labels) for _, labels, _ in parts))
            profile.step(meter)
            if i % options.log_every == 0 or i == steps:
                meter.read(f"of epoch {epoch + 1}")
                if i < steps:
                    eta = self.state.progress.eta(epoch, i / steps)
                    where = f"epoch {epoch + 1}/{recipe.epochs}  step {i}/{steps}"
                    self.run.say(f"{where}  {meter}  lr {lr:.3g}  ETA {eta}", transient=True)
            if i == steps:
                break
            self.save_within(meter, stop)
        return meter

    def augmented(self, batch: tuple[Tensor, Tensor], epoch: int, step: int, part: int) -> Part:
        """A part of a step's batch as the recipe augments it; ``part`` counts from 0, ``step`` from 1."""
        images, labels = batch
        if not self.recipe.augmentation:
            return images, labels, None
        number = (step - 1) * self.recipe.accumulate + part + 1
        options = self.options
        images, mixed = augment(
            images, labels, self.recipe.augmentation, options.seed, epoch, number, options.world.rank
        )
        return images, labels, mixed

    def save_within(self, meter: Meter, stop: Stop) -> None:
        """Saves after a step where it is due or a signal came; raises Interrupted in the latter case."""
        world, every, i = self.options.world, self.options.save_steps, meter.steps
        stopped = (world.size == 1 or i % STOP_CHECK == 0) and world.any(stop.signal is not None)
        if stopped or (every and i % every == 0):
            self.saver.save(None, meter)
        if stopped:
            raise stop.error

    def end_epoch(self, epoch: int, meter: Meter) -> None:
        """Validates the averaged weights, writes the epoch's results and its checkpoint."""
        progress, world = self.state.progress, self.options.world
        world.mean(list(self.ema.module.buffers()))  # running statistics are each process's own, weights are the same
        # fused as `imgtool val` does it: fewer passes, and the same numbers
        fused = Native.fused(self.ema.module, self.criterion, self.device)
        metrics = evaluate(fused, self.val_loader, self.device, world=world)
        del fused  # its memory is the next epoch's
        is_best = progress.finish_epoch(metrics)
        self.run.add_result(
            {
                "epoch": epoch + 1,
                "time": f"{progress.seconds:.2f}",
                "train/loss": f"{meter.mean_loss:.6g}",
                "metrics/accuracy_top1": f"{metrics.top1:.6g}",
                "metrics/accuracy_top5": f"{metrics.top5:.6g}",
                "val/loss": f"{metrics.loss:.6g}",
                "lr/pg0": f"{self.recipe.lr_at(epoch * self.steps + max(meter.steps - 1, 0), self.steps):.6g}",
                "imgsz": self.train_loader.image_size,
                "images_per_second": f"{meter.images_per_second:.1f}",
                "data_wait": f"{meter.data_wait:.4f}",
                "val_seconds": f"{metrics.seconds:.2f}",
                "bad_steps": meter.bad_steps,
            }
        )
        self.saver.save(metrics, is_best=is_best)
        self.run.say(
            f"epoch {epoch + 1}/{self.recipe.epochs}  {meter}  top-1 {metrics.top1:.2%}  top-5 {metrics.top5:.2%}  "
            f"val loss {metrics.loss:.3f}  ETA {progress.eta(epoch + 1)}{'  best' if is_best else ''}"
        )
        if self.options.on_epoch:
            self.options.on_epoch(epoch + 1, metrics)


@dataclass
class State:
    """What a resumed run needs to go on exactly as it would have."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    ema: EMA
    progress: Progress
    loader: Loader
    world: World = field(default_factory=World)

    def to_dict(self, meter: Meter | None = None) -> dict[str, Any]:
        """Without the averaged weights, which a checkpoint has anyway. ``meter`` is that of an epoch in its middle. All
        processes must call it."""
        self.loader.set_epoch(self.progress.epochs)  # between epochs its state is that of the next one's beginning
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "ema_steps": self.ema.steps,
            "rng": self.world.gather({"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}),
            "loader": self.loader.state_dict(),
            "meters": self.world.gather(meter.state_dict() if meter else None),
            "best": self.progress.best.to_dict() if self.progress.best else None,
            "seconds": self.progress.seconds,
        }

    def restore(self, content: dict[str, Any]) -> dict[str, Any] | None:
        """Takes over a checkpoint's content (its ``ema`` and ``resume``); returns the state of its meter, if any.

        With another number of processes than the checkpoint's, what each had of its own (random state, meter) is the
        first one's.
        """
        saved = content["resume"]
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.scaler and saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        self.ema.module.load_state_dict(content["ema"])
        self.ema.steps = saved["ema_steps"]
        self.loader.load_state_dict(saved["loader"])
        self.progress.epochs = content["epoch"]
        self.progress.best = Metrics(**saved["best"]) if saved["best"] else None
        self.progress.earlier_seconds = saved["seconds"]
        own = self.world.rank if self.world.size == len(saved["rng"]) else 0
        torch.set_rng_state(saved["rng"][own]["cpu"])
        if len(saved["rng"][own]["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(saved["rng"][own]["cuda"])
        meter: dict[str, Any] | None = saved["meters"][own]
        return meter


@dataclass
class Saver:
    """Writes checkpoints of the state, from the first process."""

    run: Run
    recipe: Recipe
    classes: Classes
    state: State
    size: str
    keep: int

    def save(self, metrics: Metrics | None, meter: Meter | None = None, is_best: bool = False) -> None:
        """best.pt first if it is one, then last.pt: killed between the two, the epoch is repeated and nothing lost."""
        resume = self.state.to_dict(meter)
        if not self.state.world.is_main:
            return
        content: dict[str, Any] = {
            "size": self.size,
            "dropout": self.recipe.dropout,
            "imgsz": self.recipe.imgsz,
            "wnids": self.classes.wnids,
            "names": self.classes.names,
            "epoch": self.state.progress.epochs,
            "metrics": metrics.to_dict() if metrics else None,
            "recipe": self.recipe.to_dict(),
            "ema": self.state.ema.module.state_dict(),
            "resume": None,
        }
        if is_best:
            checkpoint.save(self.run.best, content)
        self.run.keep_last(self.keep)
        checkpoint.save(self.run.last, content | {"resume": resume})
