"""`imgtool train --profile`: a trace of 20 steps, and a verdict on what limits the training's speed."""

import gzip
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from imgtool.training.engine.meters import Meter
from imgtool.training.runs.run import Run

FIRST, COUNT = 10, 20  # steps skipped first, which compile and fill caches; steps traced
SLOW_LOADER = 0.1  # the loader is the bottleneck if waiting for batches takes more than this fraction of the time


class Profile:
    """Traces steps 11 to 30 of this process into RUN/profile/trace.json.gz (for chrome://tracing or Perfetto), and
    writes RUN/profile/verdict.txt. The steps may span several epochs. Does nothing unless enabled."""

    def __init__(self, run: Run, device: torch.device, enabled: bool) -> None:
        self.run, self.device, self.enabled = run, device, enabled and not run.mute
        self.steps = 0
        self.profiler: Any = None
        self.waited = self.started = 0.0
        self._meter: Meter | None = None
        self._waited_before = 0.0  # the meter's waiting time at the last mark

    def __enter__(self) -> "Profile":
        return self

    def step(self, meter: Meter) -> None:
        """Call this after each step."""
        if not self.enabled:
            return
        self.steps += 1
        if self.steps == FIRST:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (self.device.type == "cuda")
            self._wait()
            self.profiler = profile(activities=activities)
            self.profiler.__enter__()
            self.started, self.waited = time.perf_counter(), 0.0
            self._mark(meter)
        elif self.profiler is not None:
            self._mark(meter)
            if self.steps == FIRST + COUNT:
                self._finish()

    def _mark(self, meter: Meter) -> None:
        """Adds the waiting time since the last mark; each epoch has a new meter."""
        if self._meter is meter:
            self.waited += meter.waited - self._waited_before
        self._meter, self._waited_before = meter, meter.waited

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _finish(self) -> None:
        self._wait()
        seconds = time.perf_counter() - self.started
        self.profiler.__exit__(None, None, None)
        folder = self.run.path / "profile"
        folder.mkdir(exist_ok=True)
        trace = folder / "trace.json.gz"
        self.profiler.export_chrome_trace(str(trace))
        text = verdict(device_seconds(trace), self.waited, seconds, self.steps - FIRST)
        (folder / "verdict.txt").write_text(text + "\n", encoding="utf-8")
        self.run.say(f"profile: {text} The trace is in {trace}.")
        self.enabled, self.profiler = False, None

    def __exit__(self, *_: object) -> None:
        if self.profiler is not None:
            if self.steps > FIRST:
                self._finish()
            else:
                self.profiler.__exit__(None, None, None)
        elif self.enabled:
            self.run.say(f"profile: nothing was traced, because the training ended before step {FIRST + 1}")


def device_seconds(trace: Path) -> dict[str, float]:
    """Returns the seconds that the GPU spent on each kind of work in a trace: kernel, memcpy, memset; empty without a
    GPU."""
    with gzip.open(trace, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    sums: dict[str, float] = defaultdict(float)
    for event in events:
        kind = str(event.get("cat", "")).removeprefix("gpu_")
        if kind in ("kernel", "memcpy", "memset") and "dur" in event:
            sums[kind] += event["dur"] / 1e6
    return dict(sums)


def verdict(on_device: dict[str, float], waited: float, seconds: float, steps: int) -> str:
    """Returns one paragraph: whether the loader, copies, kernel launches or the model limit the speed."""
    wait = waited / seconds
    parts = [
        f"{steps} steps took {seconds:.2f} s, {seconds / steps * 1e3:.1f} ms each; {wait:.0%} of it waiting for batches"
    ]
    kernels, copies = on_device.get("kernel", 0.0) / seconds, on_device.get("memcpy", 0.0) / seconds
    if on_device:
        parts.append(f"the GPU computed for {kernels:.0%} of the time and copied for {copies:.0%}")
    if wait > SLOW_LOADER:
        conclusion = (
            "Bound by the loader: use more --workers, or prepare the data with a smaller --max-side or with --store "
            "jpeg-indexed or raw; imgtool bench loader --data shows what slows it down."
        )
    elif on_device and copies > kernels:
        conclusion = "Bound by copies to and from the GPU: look in the trace for copies of anything but batches."
    elif on_device and kernels < 0.7:
        conclusion = (
            "Bound by kernel launches: the GPU idles between kernels; use a larger --batch, and torch.compile if it is "
            "off."
        )
    else:
        conclusion = "Bound by the model: the loader keeps up."
    return f"{'; '.join(parts)}. {conclusion}"
