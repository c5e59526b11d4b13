"""The measurements of a part, in a file that is written after each one, so that an interrupted part keeps them."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from imgtool.bench import machine
from imgtool.bench.gpu.settings import BenchSettings
from imgtool.pipelines.storage.atomic import write_text
from imgtool.wordnet.errors import InputError

OUT_OF_MEMORY = "out of memory"
PACKAGES = ("imgtool", "torch", "torchvision", "torchcodec", "triton", "nvidia-dali-cuda130", "numpy", "pillow")


class OutOfTime(Exception):
    """Raised when the time limit of a part is reached. Its measurements are kept."""


class PartResults:
    """The file ``out``/gpu-PART.json. ``measured`` has one dict per measurement, by name, with date and commit.

    Raises:
        InputError: the file has measurements of another device, which are never replaced.
    """

    def __init__(self, part: str, settings: BenchSettings) -> None:
        self.path = settings.out / f"gpu-{part}.json"
        self.settings, self.started, self.longest = settings, time.monotonic(), 0.0
        self.failures: list[str] = []
        self.measured: dict[str, dict[str, Any]] = {}
        self.content: dict[str, Any] = {"bench": "gpu", "part": part, "complete": False, **facts(settings.device)}
        if before := read(self.path):
            if before["device"] != self.content["device"]:
                raise InputError(
                    f"{self.path} has measurements of {before['device']}, but this is {self.content['device']}: choose "
                    "another --out, or move the file away"
                )
            self.measured = before["measured"]
        self.content |= {"absent": {}, "measured": self.measured}
        self.write()

    @property
    def seconds_left(self) -> float:
        """Seconds until the part's time limit."""
        return self.settings.limit - (time.monotonic() - self.started)

    def measure(self, name: str, job: Callable[[], dict[str, Any]]) -> None:
        """Runs ``job`` and stores its result, unless an earlier call has measured it.

        An error is stored as ``failed``, so that the next measurements can run.

        Raises:
            OutOfTime: less time is left than the longest measurement has taken.
        """
        known = self.measured.get(name)
        if known and not self.settings.again and known.get("failed", OUT_OF_MEMORY) == OUT_OF_MEMORY:
            click.echo(f"{name}: already measured at commit {known['commit']}; --again repeats it")
            return
        if self.seconds_left < self.longest:
            raise OutOfTime
        started = time.monotonic()
        try:
            result = job()
        except OutOfTime:
            raise
        except torch.OutOfMemoryError:
            result = {"failed": OUT_OF_MEMORY}
        except Exception as error:
            result = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
            self.failures.append(f"{name}: {result['failed']}")
        self.longest = max(self.longest, time.monotonic() - started)
        self.put(name, result)

    def put(self, name: str, result: dict[str, Any]) -> None:
        self.measured[name] = {**result, "date": _now(), "commit": self.settings.commit}
        self.write()
        shown = {key: value for key, value in result.items() if key not in ("kernels", "result")}
        brief = (f"{key} {_brief(value)}" for key, value in shown.items() if str(value) not in name.split())
        click.echo(f"{name}: {', '.join(brief) or 'done'}")

    def absent(self, name: str, reason: str) -> None:
        """Stores and prints why a peer is not available on this machine."""
        self.content["absent"][name] = reason
        click.echo(f"{name}: not available: {reason}")
        self.write()

    def finish(self) -> None:
        self.content["complete"] = not self.failures
        self.write()

    def write(self) -> None:
        self.content["date"] = _now()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(self.content, indent=1) + "\n")


def read(path: Path) -> dict[str, Any] | None:
    """Reads the results of a part; None if there is no such file.

    Raises:
        InputError: the file is something else.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path} was not written by imgtool bench gpu: {error}") from None
    if not isinstance(content, dict) or content.get("bench") != "gpu":
        raise InputError(f"{path} was not written by imgtool bench gpu: move it away")
    return content


def facts(device: torch.device) -> dict[str, Any]:
    """Describes the device, driver, memory and host, and the versions that the measurements depend on."""
    out: dict[str, Any] = {"device": f"{device.type} (a rehearsal)", "rehearsal": True}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        out = {"device": properties.name, "rehearsal": False, "memory_gib": round(properties.total_memory / 2**30, 1)}
        out |= {"driver": smi("driver_version"), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    versions["torch"] = torch.__version__  # with the build tag
    return out | {"machine": machine.describe(), "versions": versions}


def smi(query: str) -> str | None:
    """Queries nvidia-smi about the first GPU; None if it is not available."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else None


def checkout() -> Path | None:
    """Returns the root of the checkout that this package is installed from; None for a wheel."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "tests" / "gpu").is_dir() else None


def commit() -> str:
    """Returns the commit of the checkout, with a + if files are modified; "unknown" outside a checkout."""
    try:
        command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+"]
        done = subprocess.run(command, cwd=checkout(), capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 and checkout() else "unknown"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_brief, value))}]" if len(value) <= 8 else f"[{len(value)} values]"
    return str(value)
