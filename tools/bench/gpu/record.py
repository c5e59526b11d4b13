"""What a part has measured, in a file that is whole after every measurement: one that is cut off keeps what it had."""

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
from imgtool.bench.gpu.plan import Plan
from imgtool.pipelines.storage.atomic import write_text
from imgtool.wordnet.errors import InputError

OUT_OF_MEMORY = "out of memory"
PACKAGES = ("imgtool", "torch", "torchvision", "torchcodec", "triton", "nvidia-dali-cuda130", "numpy", "pillow")


class OutOfTime(Exception):
    """The part has used up its seconds; what it has measured is kept."""


class Record:
    """The file ``out``/gpu-PART.json: ``measured`` is a dict a measurement, by name, with its date and commit.

    Raises InputError if the file has figures of another device: those are never replaced.
    """

    def __init__(self, part: str, plan: Plan) -> None:
        self.path = plan.out / f"gpu-{part}.json"
        self.plan, self.started, self.longest = plan, time.monotonic(), 0.0
        self.troubles: list[str] = []
        self.measured: dict[str, dict[str, Any]] = {}
        self.content: dict[str, Any] = {"bench": "gpu", "part": part, "complete": False, **facts(plan.device)}
        if before := read(self.path):
            if before["device"] != self.content["device"]:
                raise InputError(
                    f"{self.path} has figures of {before['device']}, this is {self.content['device']}: choose another "
                    "--out, or move the file away"
                )
            self.measured = before["measured"]
        self.content |= {"absent": {}, "measured": self.measured}
        self.write()

    @property
    def left(self) -> float:
        """Seconds until the part's time is over."""
        return self.plan.limit - (time.monotonic() - self.started)

    def measure(self, name: str, job: Callable[[], dict[str, Any]]) -> None:
        """Does ``job`` and keeps what it returns, unless that is there already from an earlier call.

        What goes wrong is kept as well, as ``failed``, so that the others still get their turn. Raises OutOfTime when
        less is left than the longest measurement so far has taken.
        """
        known = self.measured.get(name)
        if known and not self.plan.again and known.get("failed", OUT_OF_MEMORY) == OUT_OF_MEMORY:
            click.echo(f"{name}: measured already, commit {known['commit']}; --again measures anew")
            return
        if self.left < self.longest:
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
            self.troubles.append(f"{name}: {result['failed']}")
        self.longest = max(self.longest, time.monotonic() - started)
        self.put(name, result)

    def put(self, name: str, result: dict[str, Any]) -> None:
        self.measured[name] = {**result, "date": _now(), "commit": self.plan.commit}
        self.write()
        told = {key: value for key, value in result.items() if key not in ("kernels", "result")}
        brief = (f"{key} {_brief(value)}" for key, value in told.items() if str(value) not in name.split())
        click.echo(f"{name}: {', '.join(brief) or 'done'}")

    def absent(self, name: str, reason: str) -> None:
        """A peer that is not on this machine."""
        self.content["absent"][name] = reason
        click.echo(f"{name}: not here: {reason}")
        self.write()

    def finish(self) -> None:
        self.content["complete"] = not self.troubles
        self.write()

    def write(self) -> None:
        self.content["date"] = _now()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(self.content, indent=1) + "\n")


def read(path: Path) -> dict[str, Any] | None:
    """A record's content; None if there is no such file. Raises InputError for a file of something else."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path} is no record of imgtool bench gpu: {error}") from None
    if not isinstance(content, dict) or content.get("bench") != "gpu":
        raise InputError(f"{path} is no record of imgtool bench gpu: move it away")
    return content


def facts(device: torch.device) -> dict[str, Any]:
    """The device, its driver and memory, the host, and the versions that the figures depend on."""
    out: dict[str, Any] = {"device": f"{device.type} (a rehearsal)", "rehearsal": True}
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        out = {"device": about.name, "rehearsal": False, "memory_gib": round(about.total_memory / 2**30, 1)}
        out |= {"driver": smi("driver_version"), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    versions["torch"] = torch.__version__  # with its build
    return out | {"machine": machine.describe(), "versions": versions}


def smi(query: str) -> str | None:
    """What nvidia-smi answers to the query, of the first GPU; None where it is missing."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else None


def checkout() -> Path | None:
    """The folder of the checkout that this package is installed from; None for a wheel."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "tests" / "gpu").is_dir() else None


def commit() -> str:
    """Of the checkout, with a + if it has been changed since; "unknown" outside one."""
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
