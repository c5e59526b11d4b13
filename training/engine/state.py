"""The state of a training between two steps, and the checkpoints that hold it."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from imgtool.training.checkpoints import checkpoint
from imgtool.training.engine.ema import EMA
from imgtool.training.engine.meters import Meter, Progress
from imgtool.training.engine.setup import ResumableLoader, Setup
from imgtool.training.evaluation.evaluate import Metrics
from imgtool.training.parallel.distributed import World
from imgtool.training.runs.run import Run
from imgtool.wordnet.errors import CheckpointError, first_line


@dataclass
class TrainingState:
    """Everything that changes during a training: restoring it resumes the training bit for bit."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    ema: EMA
    progress: Progress
    loader: ResumableLoader
    world: World = field(default_factory=World)

    def to_dict(self, meter: Meter | None = None) -> dict[str, Any]:
        """Returns ``resume`` of a checkpoint. The averaged weights are not in it: the checkpoint has them as ``ema``.

        ``meter`` is that of an unfinished epoch, None between epochs. Every process must call this.
        """
        self.loader.set_epoch(self.progress.epochs)  # between epochs: the start of the next one
        return {
            "model": self.network.state_dict(),
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
        """Restores the state from a checkpoint's ``ema`` and ``resume``; returns the meter of its unfinished epoch.

        If the number of processes has changed, each takes the random state and the meter of the first process. Raises
        CheckpointError if the state does not fit the training.
        """
        try:
            return self._restore(content)
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise CheckpointError(f"cannot resume: the checkpoint does not fit the run: {first_line(error)}") from error

    def _restore(self, content: dict[str, Any]) -> dict[str, Any] | None:
        saved = content["resume"]
        self.network.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for parameter, state in self.optimizer.state.items():
            if any(isinstance(item, Tensor) and item.shape not in (parameter.shape, ()) for item in state.values()):
                raise ValueError("the optimizer's state has another shape than its parameters")
        if self.scaler and saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        self.ema.module.load_state_dict(content["ema"])
        self.ema.steps = saved["ema_steps"]
        self.loader.load_state_dict(saved["loader"])
        self.progress.epochs = content["epoch"]
        self.progress.best = Metrics(**saved["best"]) if saved["best"] else None
        self.progress.earlier_seconds = saved["seconds"]
        rank = self.world.rank if self.world.size == len(saved["rng"]) else 0
        torch.set_rng_state(saved["rng"][rank]["cpu"])
        if len(saved["rng"][rank]["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(saved["rng"][rank]["cuda"])
        meter: dict[str, Any] | None = saved["meters"][rank]
        return meter


@dataclass
class CheckpointWriter:
    """Writes the checkpoints of a run. Every process must call `save`; the first one writes."""

    run: Run
    setup: Setup
    state: TrainingState
    keep: int

    def save(self, metrics: Metrics | None, meter: Meter | None = None, is_best: bool = False) -> None:
        """Writes best.pt if ``is_best``, then last.pt. A process killed between the two repeats the epoch."""
        resume = self.state.to_dict(meter)
        if not self.state.world.is_main:
            return
        setup, recipe = self.setup, self.setup.recipe
        content: dict[str, Any] = {
            "size": setup.size,
            "dropout": recipe.dropout,
            "imgsz": recipe.imgsz,
            "wnids": setup.wnids,
            "names": setup.names,
            "epoch": self.state.progress.epochs,
            "metrics": metrics.to_dict() if metrics else None,
            "recipe": recipe.to_dict(),
            "ema": self.state.ema.module.state_dict(),
            "resume": None,
        }
        if is_best:
            checkpoint.save(self.run.best, content)
        self.run.keep_last(self.keep)
        checkpoint.save(self.run.last, content | {"resume": resume})
