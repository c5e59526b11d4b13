"""Run directories: everything that one training writes, and everything that is needed to repeat it.

    runs/NAME/
      run.json       command line, size, recipe, data and its fingerprint, seed, device, versions
      results.csv    one line per epoch
      log.txt        every log line
      train_batch0.jpg …          the first batches as the network gets them
      results.png, metrics.json, confusion_matrix.png, confusion.csv, confusion.npz, mistakes.jpg
                     written after the last epoch, with the best model (imgtool.training.evaluation.error_analysis)
      report.html    all of it on one page, written by `imgtool report`
      weights/       best.pt (highest top-1; EMA weights, for inference), last.pt (the latest, to resume from), and the
                     ones before it: last-1.pt, …

Nothing outside the directory is needed or changed.
"""

import csv
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgtool.pipelines.storage.atomic import atomic_write, write_text
from imgtool.training.checkpoints import checkpoint
from imgtool.training.runs.loggers import LoggerGroup
from imgtool.wordnet.errors import CheckpointError, InputError, first_line

RUNS = Path("runs")
COLUMNS = (  # the first seven are Ultralytics' names, which existing plot scripts read; new ones go to the end
    "epoch",
    "time",
    "train/loss",
    "metrics/accuracy_top1",
    "metrics/accuracy_top5",
    "val/loss",
    "lr/pg0",
    "imgsz",
    "images_per_second",
    "data_wait",
    "val_seconds",
    "bad_steps",
)
SETTINGS: dict[str, tuple[type, ...]] = {  # types of the keys of run.json that are used again
    "argv": (list, type(None)),
    "size": (str,),
    "weights": (str, type(None)),
    "recipe": (dict,),
    "data": (str,),
    "labelmap": (dict, type(None)),
    "fingerprint": (str,),
    "val_split": (str,),
    "seed": (int,),
    "precision": (str,),
    "sync_bn": (bool,),
    "versions": (dict,),
}


class Run:
    """One run directory. With ``quiet``, log lines go only to log.txt, not to standard error.

    In training with several processes, only the first one writes; the others set ``mute``, which disables all writes.
    """

    def __init__(self, path: Path, quiet: bool = False, mute: bool = False) -> None:
        self.path, self.quiet, self.mute = path, quiet, mute
        self.terminal = sys.stderr.isatty()
        self.logger: LoggerGroup | None = None  # gets each row of results.csv

    @property
    def last(self) -> Path:
        return self.path / "weights" / "last.pt"

    @property
    def best(self) -> Path:
        return self.path / "weights" / "best.pt"

    @property
    def results(self) -> Path:
        return self.path / "results.csv"

    @classmethod
    def create(cls, name: str | Path | None = None, quiet: bool = False) -> "Run":
        """Creates runs/NAME, or NAME itself if it is a path, or without a name the next free of runs/train, train2, ….

        Raises InputError if the directory is not empty or cannot be created.
        """
        number = 1
        path = run_path(name) if name is not None else RUNS / "train"
        while True:
            try:
                path.mkdir(parents=True, exist_ok=name is not None)
                break
            except FileExistsError:
                if name is not None:
                    raise InputError(f"{path} is a file: give the run another --name") from None
                number += 1
                path = RUNS / f"train{number}"
            except OSError as error:
                raise InputError(f"cannot create the run directory {path}: {error.strerror}") from None
        if any(path.iterdir()):
            raise InputError(f"{path} is not empty: give the run another --name, or continue that run with --resume")
        (path / "weights").mkdir()
        return cls(path, quiet)

    @classmethod
    def reopen(cls, name: str | Path | None = None, quiet: bool = False, mute: bool = False) -> "Run":
        """Opens the run of a name, a path, or one of its checkpoints; without a name, the one in runs/ saved last.

        Raises CheckpointError if there is no such run or it has no checkpoint to resume from.
        """
        if name is None:
            saved = sorted(RUNS.glob("*/weights/last.pt"), key=lambda path: path.stat().st_mtime)
            if not saved:
                raise CheckpointError(f"no run to resume in {RUNS}/")
            path = saved[-1].parent.parent
        else:
            path = run_path(name)
            if path.suffix == ".pt" and path.parent.name == "weights":
                path = path.parent.parent
        run = cls(path, quiet, mute)
        if not run.last.is_file() and not run._last(1).is_file():
            raise CheckpointError(
                f"cannot resume {path}: it has no checkpoint yet ({run.last}); delete it, or start with another --name"
            )
        return run

    def keep_last(self, count: int) -> None:
        """Renames last.pt to last-1.pt and so on, before a new last.pt is written; ``count`` are kept in all.

        last.pt is linked rather than moved, so that it exists at any time.
        """
        for number in range(count - 1, 0, -1):
            newer, older = self._last(number - 1), self._last(number)
            if newer.exists():
                older.unlink(missing_ok=True)
                os.link(newer, older) if number == 1 else os.replace(newer, older)

    def _last(self, age: int) -> Path:
        return self.last if age == 0 else self.last.with_name(f"last-{age}.pt")

    def load_last(self) -> dict[str, Any]:
        """Loads the latest intact checkpoint and logs each damaged one that it skips.

        Raises CheckpointError if none is intact.
        """
        for age in itertools.count():
            path = self._last(age)
            try:
                return checkpoint.load(path)
            except CheckpointError as error:
                if not self._last(age + 1).exists():
                    raise
                self.say(f"{error}; resuming from the previous checkpoint, {self._last(age + 1).name}")
        raise AssertionError("never reached")

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Writes run.json atomically."""
        if self.mute:
            return
        write_text(self.path / "run.json", json.dumps(settings, indent=2, ensure_ascii=False) + "\n")

    def read_settings(self, *required: str) -> dict[str, Any]:
        """Reads run.json. Raises CheckpointError, which names the key, if it is missing or damaged, lacks one of the
        ``required`` keys, or has a key of another type than `imgtool.training.job.Job.settings` gives it."""
        path = self.path / "run.json"
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"cannot read {path}: {first_line(error)}") from None
        if not isinstance(settings, dict):
            raise CheckpointError(f"{path} is damaged: it is not a JSON object")
        for key in required:
            if key not in settings:
                raise CheckpointError(f"{path} is damaged: it lacks the key {key}")
        for key, kinds in SETTINGS.items():
            if key in settings and type(settings[key]) not in kinds:
                raise CheckpointError(f"{path} is damaged: {key} has the type {type(settings[key]).__name__}")
        return settings

    def say(self, line: str, transient: bool = False) -> None:
        """Writes a line to log.txt and the terminal, where a ``transient`` line is overwritten by the next one."""
        if self.mute:
            return
        with open(self.path / "log.txt", "a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")
        if self.quiet:
            return
        if self.terminal and transient:
            width = shutil.get_terminal_size().columns - 1  # a wrapped line could not be overwritten
            print(f"\r\x1b[K{line[:width]}", end="", file=sys.stderr, flush=True)
        else:
            clear = "\r\x1b[K" if self.terminal else ""
            print(f"{clear}{line}", file=sys.stderr, flush=True)

    def add_result(self, row: Mapping[str, Any]) -> None:
        """Appends one epoch to results.csv and passes it to the loggers. ``row`` has the keys COLUMNS."""
        if self.mute:
            return
        new = not self.results.exists()
        with open(self.results, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        if self.logger is not None:
            self.logger.scalars(int(row["epoch"]), row)

    def epochs_in_results(self) -> int:
        """Returns the number of epochs in results.csv."""
        if not self.results.exists():
            return 0
        return len(self._results())

    def forget_results_after(self, epochs: int) -> None:
        """Drops later epochs from results.csv: a crash may come after an epoch's line and before its checkpoint."""
        if self.mute or not self.results.exists():
            return
        rows = [row for row in self._results() if int(row["epoch"]) <= epochs]
        with atomic_write(self.results) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def _results(self) -> list[dict[str, str]]:
        """Returns the rows of results.csv that have an epoch. Raises CheckpointError if it cannot be read."""
        try:
            with open(self.results, newline="", encoding="utf-8", errors="replace") as file:
                return [row for row in csv.DictReader(file) if is_epoch(row.get("epoch"))]
        except (OSError, csv.Error) as error:
            raise CheckpointError(f"cannot read {self.results}: {first_line(error)}") from None


def is_epoch(text: str | None) -> bool:
    """Whether this is the number of an epoch, as results.csv has it."""
    return text is not None and text.isascii() and text.isdigit() and len(text) < 10


def run_path(name: str | Path) -> Path:
    """Returns runs/NAME for a bare name; a path with a separator stays unchanged."""
    path = Path(name)
    return RUNS / path if len(path.parts) == 1 and isinstance(name, str) and os.sep not in name else path
