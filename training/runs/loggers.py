"""Where a run's figures go besides results.csv: TensorBoard, Weights & Biases, or a logger of one's own."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from imgtool.wordnet.errors import InputError, first_line

NAMES = ("tensorboard", "wandb")  # each the package that it needs, and the extra that installs it
PROJECT = "imgtool"  # at Weights & Biases; their WANDB_PROJECT says otherwise


class Logger(Protocol):
    """What takes a run's figures and images."""

    def scalars(self, epoch: int, row: Mapping[str, float]) -> None:
        """An epoch's figures, named as results.csv names them; ``epoch`` counts from 1."""

    def image(self, name: str, path: Path, epoch: int) -> None:
        """An image file, as it was after ``epoch`` epochs."""

    def close(self) -> None: ...


Loggers: TypeAlias = str | Logger | Sequence[str | Logger] | None


def as_list(loggers: Loggers) -> list[str | Logger]:
    """One or several loggers or their names as a list, checked before anything is begun.

    Raises InputError for a name that is none, or whose package is not installed.
    """
    several: list[Any] = list(loggers) if isinstance(loggers, list | tuple) else [] if loggers is None else [loggers]
    for logger in several:
        if isinstance(logger, str):
            if logger not in NAMES:
                raise InputError(f"there is no logger {logger!r}: give {' or '.join(NAMES)}")
            if importlib.util.find_spec(logger) is None:
                raise InputError(f"--logger {logger} needs the package {logger}: pip install 'imgtool[{logger}]'")
    return several


def open_loggers(
    loggers: Sequence[str | Logger],
    folder: Path,
    settings: Mapping[str, Any],
    epochs: int,
    say: Callable[[str], None],
) -> LoggerGroup:
    """The loggers for the run in ``folder``, whose run.json is ``settings`` and which has done ``epochs`` epochs.

    A logger that cannot be opened is left out, and ``say`` gets a line about it.
    """
    group = LoggerGroup([], say)
    for logger in loggers:
        if not isinstance(logger, str):
            group.loggers.append(logger)
            continue
        try:
            group.loggers.append(TensorBoard(folder, epochs) if logger == "tensorboard" else WandB(folder, settings))
        except Exception as error:
            say(f"{logger} cannot be used, training goes on without it: {first_line(error)}")
    return group


class LoggerGroup:
    """All of a run's loggers as one. A failing one is said and dropped: no training is lost for its log."""

    def __init__(self, loggers: list[Logger], say: Callable[[str], None]) -> None:
        self.loggers, self.say = loggers, say

    def scalars(self, epoch: int, row: Mapping[str, Any]) -> None:
        """``row``: a line of results.csv; what is no finite number in it is left out."""
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
                self.say(f"{type(logger).__name__} failed, the run goes on without it: {first_line(error)}")


class TensorBoard:
    """Event files in the run's directory: ``tensorboard --logdir runs`` shows all runs side by side."""

    def __init__(self, folder: Path, epochs: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # a resumed run takes back what an earlier sitting wrote of the epochs that are trained again
        self.writer = SummaryWriter(str(folder), purge_step=epochs + 1 if epochs else None)

    def scalars(self, epoch: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()  # so that a run that is killed leaves what it has done

    def image(self, name: str, path: Path, epoch: int) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            self.writer.add_image(name, np.asarray(image.convert("RGB")), epoch, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WandB:
    """Weights & Biases, by its own settings (WANDB_MODE=offline, WANDB_PROJECT, …); files go to the run's directory."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import wandb

        started = f"{settings.get('started')} {settings.get('fingerprint')} {folder.absolute()}"
        self.wandb = wandb
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            id=hashlib.sha256(started.encode()).hexdigest()[:16],  # the same when resumed
            resume="allow",
            dir=str(folder),
            config={key: settings.get(key) for key in ("size", "recipe", "data", "fingerprint", "seed", "device")},
            settings=wandb.Settings(console="off"),  # log.txt has the lines
        )

    def scalars(self, epoch: int, row: Mapping[str, float]) -> None:
        self.run.log(dict(row), step=epoch)

    def image(self, name: str, path: Path, epoch: int) -> None:
        self.run.log({name: self.wandb.Image(str(path))}, step=epoch)

    def close(self) -> None:
        self.run.finish()
