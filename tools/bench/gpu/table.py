"""Makes a table from the JSON files: one row per measurement, with its target and whether it was met."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from imgtool.bench.gpu.results import read

Measured = dict[str, dict[str, Any]]


class Row(NamedTuple):
    """A row of the table. ``met`` is None if there is no target; ``figure`` is a median of ``runs`` measurements."""

    what: str
    figure: str
    target: str = ""
    met: bool | None = None
    runs: int = 1


def median(one: dict[str, Any]) -> float:
    return statistics.median(one["rates"])


def successful(measured: Measured) -> list[dict[str, Any]]:
    """Returns the measurements that did not fail."""
    return [one for one in measured.values() if "failed" not in one]


def table(out: Path, parts: Iterable[tuple[str, Callable[[Measured], list[Row]]]]) -> str:
    """Returns Markdown: one section per device, and a line with the missing parts. A rehearsal meets no target."""
    sections: dict[str, list[str]] = {}
    missing = []
    for part, rows_of in parts:
        results = read(out / f"gpu-{part}.json")
        if results is None or not results["measured"]:
            missing.append(part)
            continue
        lines = sections.setdefault(
            _heading(results), ["| | measured | target | | runs |", "| --- | ---: | --- | --- | ---: |"]
        )
        for row in rows_of(results["measured"]):
            verdict = "" if row.met is None else "met" if row.met else "missed"
            if results["rehearsal"] and verdict:
                verdict = "rehearsal"
            lines.append(f"| {row.what} | {row.figure} | {row.target} | {verdict} | {row.runs} |")
        for name, one in results["measured"].items():
            if "failed" in one:
                lines.append(f"| {part}: {name} | {_cell(one['failed'])} | | failed | |")
        for name, reason in results["absent"].items():
            lines.append(f"| {part}: {name} | not available: {_cell(reason)} | | | |")
        if not results["complete"]:
            missing.append(f"{part} (incomplete)")
    text = "\n\n".join(f"{heading}\n\n" + "\n".join(lines) for heading, lines in sections.items())
    if missing:
        text += f"{chr(10) * 2 if text else ''}not measured yet: {', '.join(missing)}"
    return text


def _cell(text: str) -> str:
    return text[:100].replace("|", "/")


def _heading(results: dict[str, Any]) -> str:
    if results["rehearsal"]:
        return "A rehearsal on the CPU: these figures say nothing about a GPU."
    versions = results["versions"]
    return (
        f"{results['device']}, driver {results['driver']}, CUDA {results['cuda']}, torch {versions['torch']}; "
        f"{results['machine']}"
    )
