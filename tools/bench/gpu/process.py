"""Runs the child processes of the parts within a time limit, and monitors the GPU while they run."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from imgtool.bench.gpu.results import OutOfTime, smi

GRACE = 60.0  # seconds that a training gets to save a checkpoint after SIGTERM
MIN_SECONDS = 1.0  # with less time left, nothing is started


def imgtool(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "imgtool", *arguments]


def run(
    command: Sequence[str],
    seconds: float,
    log: Path,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Runs a command with its output appended to ``log``, and returns its exit code.

    When ``seconds`` are over, or this process is interrupted, sends SIGTERM and waits for the command to end.

    Raises:
        OutOfTime: the seconds are over.
    """
    if seconds < MIN_SECONDS:
        raise OutOfTime
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=cwd, env=environment)
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise OutOfTime from None
        finally:
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(GRACE)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()


def last_line(log: Path) -> str:
    """Returns the last line of a command's output, for an error message."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it printed nothing"


class Utilisation:
    """Samples the utilisation of the first GPU, in percent, from nvidia-smi while the context is entered.

    It includes validation and checkpoints. The lines of ``results`` (results.csv) give the number of finished epochs.
    """

    def __init__(self, results: Path, interval: float = 0.5) -> None:
        self.results, self.interval = results, interval
        self.samples: list[tuple[int, int]] = []  # (epochs done, percent)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(self.interval):
            answer = smi("utilization.gpu")
            if answer is None or not answer.isdigit():
                return
            lines = self.results.read_text().count("\n") if self.results.exists() else 0
            self.samples.append((max(lines - 1, 0), int(answer)))

    def after(self, epochs: int) -> list[int]:
        """Returns the samples taken after this many epochs."""
        return [percent for done, percent in self.samples if done >= epochs]

    def __enter__(self) -> Utilisation:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
