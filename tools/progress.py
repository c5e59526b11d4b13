"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

LINE_EVERY = 10.0  # seconds between plain lines


class SampleProgress:
    """Shows rate, remaining time and skipped samples of a prepare or verify, on standard error."""

    def __init__(self, total: int, quiet: bool = False) -> None:
        self.total, self.done, self.skipped = total, 0, 0
        self._quiet = quiet
        self._started = self._printed = time.monotonic()
        self._bar = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="img", smoothing=0.05)

    def __call__(self, samples: int, skipped: int) -> None:
        self.done += samples
        self.skipped += skipped
        if self._bar is not None:
            self._bar.update(samples)
            if skipped:
                self._bar.set_postfix(skipped=self.skipped)
        elif not self._quiet and time.monotonic() - self._printed > LINE_EVERY:
            self._printed = time.monotonic()
            rate = self.done / (self._printed - self._started)
            left = (self.total - self.done) / rate if rate else 0
            print(
                f"{self.done:,} of {self.total:,} samples, {rate:,.0f} img/s, {left:,.0f} s left, "
                f"{self.skipped} skipped",
                file=sys.stderr,
                flush=True,
            )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class ByteProgress:
    """Shows how much of a long read is done, on standard error. Called with bytes done and bytes in total."""

    def __init__(self, what: str) -> None:
        self._what, self._printed = what, time.monotonic()
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            if self._bar is None:
                from tqdm import tqdm

                self._bar = tqdm(total=total, unit="B", unit_scale=True, desc=self._what)
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._printed > LINE_EVERY:
            self._printed = time.monotonic()
            print(f"{self._what}: {done / 1e9:,.1f} of {total / 1e9:,.1f} GB", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
