"""The training loop: batches in, checkpoints out. Read it from `train` downwards.

A step is enqueued without waiting for the device: it reads no tensor's value. The losses stay on the device and are
read at the log points, where a NaN or infinite loss is detected too.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from imgtool.training.engine.ema import EMA
from imgtool.training.engine.meters import Meter, Progress, peak_flops
from imgtool.training.engine.profiler import Profile
from imgtool.training.engine.setup import Options, Setup
from imgtool.training.engine.signals import DeferredSignals
from imgtool.training.engine.state import CheckpointWriter, TrainingState
from imgtool.training.engine.step import (
    MicroBatch,
    Step,
    compiled,
    make_batch_loss,
    make_optimizer,
    make_scaler,
    set_lr,
)
from imgtool.training.evaluation.evaluate import Metrics, evaluate
from imgtool.training.models.flops import flops
from imgtool.training.parallel.distributed import replicated
from imgtool.training.recipes.augment import augment
from imgtool.training.runs.run import Run
from imgtool.training.runtimes.native import Native

SIGNAL_CHECK_STEPS = 8  # with several processes: steps between checks whether one of them got a signal


def train(
    setup: Setup,
    run: Run,
    device: torch.device,
    options: Options | None = None,
    resume: dict[str, Any] | None = None,
) -> Metrics:
    """Trains ``setup.network`` in place and returns the best epoch's metrics on ``setup.val_loader``.

    The averaged (EMA) weights are validated and saved. Each epoch adds one row to the run's results.csv and writes
    last.pt, and best.pt if its top-1 is at least the highest before. ``resume`` is the content of last.pt: training
    continues after the step that it holds, as if it had never stopped.

    SIGINT and SIGTERM raise Interrupted, a KeyboardInterrupt, once the step is done and saved in last.pt. Raises
    TrainingError, naming epoch and step, for a NaN or infinite loss.
    """
    options = options or Options()
    trainer = Trainer(setup, run, device, options)
    trainer.start(resume)
    world, progress = options.world, trainer.state.progress
    with (
        DeferredSignals(under_torchrun=world.size > 1) as signals,
        Profile(run, device, options.profile) as profile,
    ):
        for epoch in range(progress.epochs, setup.recipe.epochs):
            meter = trainer.train_epoch(epoch, signals, profile)
            trainer.end_epoch(epoch, meter)
            if epoch + 1 < setup.recipe.epochs and world.any(signals.received is not None):
                raise signals.interrupted
    assert progress.best is not None  # a recipe has at least one epoch
    return progress.best


class Trainer:
    """A running training: the setup, the optimiser and the state on their device, trained one epoch at a time."""

    def __init__(self, setup: Setup, run: Run, device: torch.device, options: Options) -> None:
        self.setup, self.run, self.device, self.options = setup, run, device, options
        self.recipe, self.loader = setup.recipe, setup.train_loader
        self.steps_per_epoch = len(self.loader) // self.recipe.accumulate
        self.network = setup.network.to(device).to(memory_format=torch.channels_last)
        self.criterion = setup.criterion.to(device)
        self.optimizer = make_optimizer(self.network, self.recipe, device)
        self.ema = EMA(self.network, self.recipe.ema_decay(self.steps_per_epoch))
        scaler = make_scaler(options.precision, device)
        network = replicated(self.network) if options.world.size > 1 else self.network
        batch_loss = make_batch_loss(network, self.criterion, device, options.precision)
        if options.compile:
            batch_loss = compiled(batch_loss, device, run.say, self.network)
        skip_bad = options.on_nan == "skip"
        self.step = Step(batch_loss, network, self.optimizer, self.ema, scaler, self.recipe.clip, skip_bad)
        progress = Progress(self.recipe)
        self.state = TrainingState(self.network, self.optimizer, scaler, self.ema, progress, self.loader, options.world)
        self.writer = CheckpointWriter(run, setup, self.state, options.keep)
        self.unfinished: dict[str, Any] | None = None  # the meter's state of an epoch that was interrupted
        # counting traces a copy of the network: once per image size, and only where the MFU can be computed
        self.flops_at = functools.cache(lambda side: flops(self.network, side) if peak_flops(device) else 0)
        torch.backends.cudnn.benchmark = True  # shapes stay the same for epochs: let cuDNN time its algorithms once

    def start(self, resume: dict[str, Any] | None) -> None:
        """Restores the state from a checkpoint's content, or saves the first checkpoint, so that --resume works."""
        if resume:
            self.unfinished = self.state.restore(resume)
        else:
            self.writer.save(None)
        self.state.progress.start(self.unfinished["steps"] / self.steps_per_epoch if self.unfinished else 0.0)

    def train_epoch(self, epoch: int, signals: DeferredSignals, profile: Profile) -> Meter:
        """Trains one epoch, or the rest of an unfinished one, and returns its meter.

        Raises Interrupted after a signal, once the step is done and saved.
        """
        options, recipe, steps = self.options, self.recipe, self.steps_per_epoch
        self.loader.set_epoch(epoch)
        self.loader.image_size = recipe.train_size_at(epoch)
        self.network.train()
        meter = Meter(self.device, options.world, self.flops_at(self.loader.image_size), options.log_every)
        if self.unfinished:
            meter.load_state_dict(self.unfinished)
            self.unfinished = None
        for batches in meter.timed(self.loader, recipe.accumulate):
            step = meter.steps + 1
            lr = set_lr(self.optimizer, recipe.lr_at(epoch * steps + step - 1, steps))
            micro_batches = [self.augmented(batch, epoch, step, i) for i, batch in enumerate(batches)]
            if options.on_batch:
                options.on_batch(epoch, step, *micro_batches[0])
            loss = self.step(micro_batches)
            if loss is None:
                meter.skip()
            else:
                meter.count(loss, sum(len(labels) for _, labels, _ in micro_batches))
            profile.step(meter)
            if step % options.log_every == 0 or step == steps:
                meter.read(epoch + 1)
                if step < steps:
                    eta = self.state.progress.eta(epoch, step / steps)
                    position = f"epoch {epoch + 1}/{recipe.epochs}  step {step}/{steps}"
                    self.run.say(f"{position}  {meter}  lr {lr:.3g}  ETA {eta}", transient=True)
            if step == steps:
                break
            self.save_within_epoch(meter, signals)
        return meter

    def augmented(self, batch: tuple[Tensor, Tensor], epoch: int, step: int, index: int) -> MicroBatch:
        """Augments one micro-batch as the recipe says; ``index`` is its 0-based number in the 1-based ``step``."""
        images, labels = batch
        augmentation, options = self.recipe.batch_augmentation, self.options
        if not augmentation:
            return images, labels, None
        number = (step - 1) * self.recipe.accumulate + index + 1
        images, mixed = augment(images, labels, augmentation, options.seed, epoch, number, options.world.rank)
        return images, labels, mixed

    def save_within_epoch(self, meter: Meter, signals: DeferredSignals) -> None:
        """Saves a checkpoint if one is due or a signal came; raises Interrupted in the latter case."""
        world, every, step = self.options.world, self.options.save_steps, meter.steps
        compare = world.size == 1 or step % SIGNAL_CHECK_STEPS == 0
        interrupted = compare and world.any(signals.received is not None)
        if interrupted or (every and step % every == 0):
            self.writer.save(None, meter)
        if interrupted:
            raise signals.interrupted

    def end_epoch(self, epoch: int, meter: Meter) -> None:
        """Validates the averaged weights, writes the epoch's row of results.csv and its checkpoint."""
        progress, world, steps = self.state.progress, self.options.world, self.steps_per_epoch
        world.mean(list(self.ema.module.buffers()))  # running statistics differ between processes, weights do not
        # fused as in `imgtool val`: fewer passes over memory, and the same numbers
        fused = Native.fused(self.ema.module, self.criterion, self.device)
        metrics = evaluate(fused, self.setup.val_loader, self.device, world=world)
        del fused  # frees its memory for the next epoch
        is_best = progress.finish_epoch(metrics)
        self.run.add_result(
            {
                "epoch": epoch + 1,
                "time": f"{progress.seconds:.2f}",
                "train/loss": f"{meter.mean_loss:.6g}",
                "metrics/accuracy_top1": f"{metrics.top1:.6g}",
                "metrics/accuracy_top5": f"{metrics.top5:.6g}",
                "val/loss": f"{metrics.loss:.6g}",
                "lr/pg0": f"{self.recipe.lr_at(epoch * steps + max(meter.steps - 1, 0), steps):.6g}",
                "imgsz": self.loader.image_size,
                "images_per_second": f"{meter.images_per_second:.1f}",
                "data_wait": f"{meter.data_wait:.4f}",
                "val_seconds": f"{metrics.seconds:.2f}",
                "bad_steps": meter.bad_steps,
            }
        )
        self.writer.save(metrics, is_best=is_best)
        self.run.say(
            f"epoch {epoch + 1}/{self.recipe.epochs}  {meter}  top-1 {metrics.top1:.2%}  top-5 {metrics.top5:.2%}  "
            f"val loss {metrics.loss:.3f}  ETA {progress.eta(epoch + 1)}{'  best' if is_best else ''}"
        )
        if self.options.on_epoch:
            self.options.on_epoch(epoch + 1, metrics)
