"""Loggers for a run's metrics and plots, besides results.csv: TensorBoard, Weights & Biases, or a custom one."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from imgtool.wordnet.errors import InputError, first_line

NAMES = ("tensorboard", "wandb")  # also the names of the packages that they need and of the extras that install them
PROJECT = "imgtool"  # at Weights & Biases, unless WANDB_PROJECT is set


class Logger(Protocol):
    """An object that takes a run's metrics and plots."""

    def scalars(self, epoch: int, row: Mapping[str, float]) -> None:
        """Takes the metrics of an epoch, with the column names of results.csv; ``epoch`` counts from 1."""

    def image(self, name: str, path: Path, epoch: int) -> None:
        """Takes an image file as it was after ``epoch`` epochs."""

    def close(self) -> None:
        """Is called when the run ends."""


Loggers: TypeAlias = str | Logger | Sequence[str | Logger] | None


def as_list(loggers: Loggers) -> list[str | Logger]:
    """Returns one or several loggers or their names as a list, after checking the names.

    Raises InputError for an unknown name, or one whose package is not installed.
    """
    chosen: list[Any] = list(loggers) if isinstance(loggers, list | tuple) else [] if loggers is None else [loggers]
    for logger in chosen:
        if isinstance(logger, str):
            if logger not in NAMES:
                raise InputError(f"unknown logger {logger!r}: choose {' or '.join(NAMES)}")
            if importlib.util.find_spec(logger) is None:
                raise InputError(f"--logger {logger} needs the package {logger}: pip install 'imgtool[{logger}]'")
    return chosen


def open_loggers(
    loggers: Sequence[str | Logger],
    folder: Path,
    settings: Mapping[str, Any],
    epochs: int,
    say: Callable[[str], None],
) -> LoggerGroup:
    """Opens loggers for the run in ``folder``.

    ``settings`` is the content of its run.json, ``epochs`` the number of its finished epochs. A logger that cannot be
    opened is left out, and ``say`` writes a line about it to the log.
    """
    group = LoggerGroup([], say)
    for logger in loggers:
        if not isinstance(logger, str):
            group.loggers.append(logger)
            continue
        try:
            group.loggers.append(TensorBoard(folder, epochs) if logger == "tensorboard" else WandB(folder, settings))
        except Exception as error:
            say(f"cannot open logger {logger}, training continues without it: {first_line(error)}")
    return group


class LoggerGroup:
    """All loggers of a run as one. A logger that fails is reported in the log and removed; training continues."""

    def __init__(self, loggers: list[Logger], say: Callable[[str], None]) -> None:
        self.loggers, self.say = loggers, say

    def scalars(self, epoch: int, row: Mapping[str, Any]) -> None:
        """Passes on a row of results.csv, without values that are not finite numbers."""
        numbers = {}
        for name, value in row.items():
            try:
                number = float(value)
            except (TypeError, ValueError):
                continue
            if name != "epoch" and math.isfinite(number):
                numbers[name] = number
        self._each(lambda logger: logger.scalars(epoch, numbers))

    def image(self, name: str, path: Path, epoch: int) -> None:
        self._each(lambda logger: logger.image(name, path, epoch))

    def close(self) -> None:
        self._each(lambda logger: logger.close())
        self.loggers = []

    def _each(self, call: Callable[[Logger], None]) -> None:
        for logger in list(self.loggers):
            try:
                call(logger)
            except Exception as error:
                self.loggers.remove(logger)
                self.say(f"logger {type(logger).__name__} failed, training continues without it: {first_line(error)}")


class TensorBoard:
    """Writes event files to the run directory: ``tensorboard --logdir runs`` shows all runs side by side."""

    def __init__(self, folder: Path, epochs: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # in a resumed run, drops events of epochs that are trained again
        self.writer = SummaryWriter(str(folder), purge_step=epochs + 1 if epochs else None)

    def scalars(self, epoch: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()  # so that the events of a killed run are on disk

    def image(self, name: str, path: Path, epoch: int) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            self.writer.add_image(name, np.asarray(image.convert("RGB")), epoch, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WandB:
    """Weights & Biases, configured by its environment variables (WANDB_MODE, WANDB_PROJECT, …).

    Its local files go to the run directory.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import wandb

        identity = f"{settings.get('started')} {settings.get('fingerprint')} {folder.absolute()}"
        self.wandb = wandb
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            id=hashlib.sha256(identity.encode()).hexdigest()[:16],  # the same when the run is resumed
            resume="allow",
            dir=str(folder),
            config={key: settings.get(key) for key in ("size", "recipe", "data", "fingerprint", "seed", "device")},
            settings=wandb.Settings(console="off"),  # console lines are in log.txt already
        )

    def scalars(self, epoch: int, row: Mapping[str, float]) -> None:
        self.run.log(dict(row), step=epoch)

    def image(self, name: str, path: Path, epoch: int) -> None:
        self.run.log({name: self.wandb.Image(str(path))}, step=epoch)

    def close(self) -> None:
        self.run.finish()
