"""The few forms that the reports' pages are made of. Whatever comes from a data set or run goes through ``text``."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #667079; --line: #d9dee3; --paper: #fff; --fill: #3b7dd8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --soft: #97a1ab; --line: #343b42; --paper: #15181b; --fill: #5b9bf0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; border-top: 1px solid var(--line);
  padding-top: 1rem; } h3 { font-size: .95rem; margin: .75rem 0 .25rem; }
small { color: var(--soft); } p { margin: .4rem 0; color: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: .5rem 0; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } th, td.n { white-space: nowrap; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.columns { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 0 2rem; }
details { margin-left: .9rem; } summary { cursor: pointer; } .leaf { margin-left: 1.9rem; }
summary:hover, .leaf:hover { background: color-mix(in srgb, var(--fill) 8%, transparent); }
.bar { display: block; height: 3px; background: var(--fill); border-radius: 2px; min-width: 1px; }
figure { display: inline-block; vertical-align: top; margin: .5rem 1.5rem .5rem 0; width: min(32rem, 100%); }
figure.wide { width: 100%; margin-right: 0; } figure img { max-width: 100%; height: auto; display: block;
  border-radius: 3px; }
pre { font-size: .8rem; overflow-x: auto; }
figure svg { width: 100%; height: auto; display: block; } figcaption { color: var(--soft); font-size: .85rem; }
.mosaic { display: flex; flex-wrap: wrap; gap: 3px; color: var(--soft); }
.mosaic img { border-radius: 3px; display: block; }
"""


NUMBER = re.compile(r"[\d.,:]+(e[+-]?\d+)?( ?[kMG]?B|%)?( ★)?")
"""Cells that are set to the right."""


def text(value: Any) -> str:
    """A value as text of a page."""
    return html.escape(f"{value:,}" if isinstance(value, int) else str(value))


def page(title: str, top: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole page."""
    body = "".join(f"<section><h2>{text(name)}</h2>{content}</section>" for name, content in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{text(title)}</h1>{top}{body}</body></html>\n"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], align: bool = True) -> str:
    """``header`` may be empty; ``align`` sets cells that are numbers to the right."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in header)
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{"n" if align and _is_number(cell) else ""}">{text(cell)}</td>' for cell in row)
        + "</tr>"
        for row in rows
    )
    head = f"<thead><tr>{head}</tr></thead>" if header else ""
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int) or (isinstance(cell, str) and NUMBER.fullmatch(cell) is not None)


def details(summary: str, content: str, opened: bool = False) -> str:
    """Content that opens on a click; both are HTML."""
    return f"<details{' open' if opened else ''}><summary>{summary}</summary>{content}</details>"


def bars(counts: Sequence[int], edges: Sequence[str]) -> str:
    """A histogram as SVG: ``counts`` between each two of ``edges``, of which a few are written below."""
    width, height, top = 480, 120, max([*counts, 1])
    step = width / len(counts)
    columns = "".join(
        f'<rect x="{i * step + 0.5:.1f}" y="{height - height * count / top:.1f}" width="{step - 1:.1f}" '
        f'height="{height * count / top:.1f}" fill="var(--fill)"><title>{text(edges[i])} to {text(edges[i + 1])}: '
        f"{count:,}</title></rect>"
        for i, count in enumerate(counts)
    )
    ticks = "".join(
        f'<text x="{i * step:.1f}" y="{height + 14}" font-size="11" fill="var(--soft)" '
        f'text-anchor="{"start" if i == 0 else "end" if i == len(counts) else "middle"}">{text(edges[i])}</text>'
        for i in range(0, len(edges), max(len(counts) // 5, 1))
    )
    return f'<svg viewBox="0 0 {width} {height + 20}" role="img" aria-label="histogram">{columns}{ticks}</svg>'


def figure(content: str, caption: str, wide: bool = False) -> str:
    return f"<figure{' class=wide' if wide else ''}>{content}<figcaption>{text(caption)}</figcaption></figure>"
