"""A row a figure, from the JSON files alone: what was measured, what was aimed at, whether it is met."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from imgtool.bench.gpu.record import read

Measured = dict[str, dict[str, Any]]


class Row(NamedTuple):
    """``met`` is None where nothing is aimed at; ``runs`` is how many measurements the figure is a median of."""

    what: str
    figure: str
    target: str = ""
    met: bool | None = None
    runs: int = 1


def median(one: dict[str, Any]) -> float:
    return statistics.median(one["rates"])


def good(measured: Measured) -> list[dict[str, Any]]:
    """The measurements that did not fail."""
    return [one for one in measured.values() if "failed" not in one]


def table(out: Path, parts: Iterable[tuple[str, Callable[[Measured], list[Row]]]]) -> str:
    """Markdown, a section a device and a line on what is missing. Figures of a rehearsal get no verdict."""
    sections: dict[str, list[str]] = {}
    missing = []
    for part, rows_of in parts:
        record = read(out / f"gpu-{part}.json")
        if record is None or not record["measured"]:
            missing.append(part)
            continue
        lines = sections.setdefault(
            _heading(record), ["| | measured | target | | runs |", "| --- | ---: | --- | --- | ---: |"]
        )
        for row in rows_of(record["measured"]):
            verdict = "" if row.met is None else "met" if row.met else "missed"
            if record["rehearsal"] and verdict:
                verdict = "rehearsal"
            lines.append(f"| {row.what} | {row.figure} | {row.target} | {verdict} | {row.runs} |")
        for name, one in record["measured"].items():
            if "failed" in one:
                lines.append(f"| {part}: {name} | {_cell(one['failed'])} | | failed | |")
        for name, reason in record["absent"].items():
            lines.append(f"| {part}: {name} | not here: {_cell(reason)} | | | |")
        if not record["complete"]:
            missing.append(f"{part} (in part)")
    text = "\n\n".join(f"{heading}\n\n" + "\n".join(lines) for heading, lines in sections.items())
    if missing:
        text += f"{chr(10) * 2 if text else ''}not measured yet: {', '.join(missing)}"
    return text


def _cell(text: str) -> str:
    return text[:100].replace("|", "/")


def _heading(record: dict[str, Any]) -> str:
    if record["rehearsal"]:
        return "A rehearsal on the CPU: these figures say nothing about a GPU."
    versions = record["versions"]
    return (
        f"{record['device']}, driver {record['driver']}, CUDA {record['cuda']}, torch {versions['torch']}; "
        f"{record['machine']}"
    )
