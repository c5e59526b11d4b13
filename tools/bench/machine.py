"""What the figures of a benchmark were measured on."""

from __future__ import annotations

import contextlib
import platform

from imgtool.pipelines.threads import available_cpus


def describe() -> str:
    """This machine in a line: processor and its clock as Linux tells it, cores, Python."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        facts = dict(line.rstrip("\n").replace("\t", "").split(":", 1) for line in file if ":" in line)
        clock = float(facts.get("cpu MHz", 0)) / 1000
        processor = facts.get("model name", processor).strip() + (f" at {clock:.1f} GHz" if clock else "")
    return f"{processor}, {available_cpus()} cores, {platform.machine()}, Python {platform.python_version()}"
