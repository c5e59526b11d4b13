"""Child processes of the parts: ended when their time is up, watched on the GPU while they run."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from imgtool.bench.gpu.record import OutOfTime, smi

GRACE = 60.0  # seconds that a training may take to save its step when it is told to stop
NOTHING_LEFT = 1.0


def imgtool(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "imgtool", *arguments]


def run(
    command: Sequence[str],
    seconds: float,
    log: Path,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Runs the command, its output into ``log``, and returns its exit code. When its seconds are over, or this process
    is interrupted, it is told to stop (SIGTERM) and waited for; the former raises OutOfTime."""
    if seconds < NOTHING_LEFT:
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
    """Of what a command said, for an error."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it ended without a word"


class Utilisation:
    """While entered, asks nvidia-smi every ``interval`` seconds how busy the first GPU is, in percent of the time
    of its last sample; validation and checkpoints count, too. ``results`` tells how many epochs were done then."""

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

    def behind(self, epochs: int) -> list[int]:
        """The samples taken when so many epochs were done."""
        return [percent for done, percent in self.samples if done >= epochs]

    def __enter__(self) -> Utilisation:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
