"""Describes the machine that a benchmark runs on."""

from __future__ import annotations

import contextlib
import platform

from imgtool.pipelines.threads import available_cpus


def describe() -> str:
    """Returns one line: processor and clock rate (from /proc/cpuinfo), cores, architecture, Python version."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        facts = dict(line.rstrip("\n").replace("\t", "").split(":", 1) for line in file if ":" in line)
        clock = float(facts.get("cpu MHz", 0)) / 1000
        processor = facts.get("model name", processor).strip() + (f" at {clock:.1f} GHz" if clock else "")
    return f"{processor}, {available_cpus()} cores, {platform.machine()}, Python {platform.python_version()}"
