"""Draws the hierarchy below a synset: as text, SVG or DOT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import InputError
from imgtool.wordnet.graph.dag import csr_positions
from imgtool.wordnet.graph.synset import Synset
from imgtool.wordnet.graph.types import Key, SynsetGraph

ROW, INDENT, CHAR = (
    18,
    26,
    6.7,
)  # of the SVG, in pixels: row height, indentation per level, width of a letter in 11px monospace


def draw(
    h: SynsetGraph,
    under: Key,
    values: npt.ArrayLike | Mapping[Any, float] | None = None,
    format: str = "text",
    max_depth: int | None = None,
) -> str:
    """Draws the synsets at or below a synset; `Hierarchy.draw` calls this.

    Args:
        h: the hierarchy.
        under: the key of the synset at the top.
        values: one number per class, as floats [classes] or as a mapping from keys of classes. Values are shown and, in
            SVG and DOT, coloured from the lowest to the highest. A synset above the classes gets the mean over the
            classes at or below it that have a value, each counted once. None and NaN mean no value.
        format: `"text"`, with box characters; `"svg"`, self-contained; `"dot"`, for Graphviz. In SVG and DOT, a synset
            with several parents in the drawing appears once, with an edge from each parent. In text, it appears under
            its first parent, and under the others as a reference, "↑ name", without its descendants.
        max_depth: the number of levels to draw below the top, by the shortest path; None for all. Means always cover
            all classes.

    Returns:
        The drawing, which ends in a newline. Children are in wnid order.

    Raises:
        UnknownSynsetError: a key matches no synset, or several.
        InputError: an unknown format, values of the wrong shape, or a value for a synset that is not a class.
    """
    if format not in _FORMATS:
        raise InputError(f"unknown format {format!r}: use one of {', '.join(map(repr, _FORMATS))}")
    if max_depth is not None and max_depth < 0:
        raise InputError(f"max_depth must be at least 0, not {max_depth}")
    top = h[under].node
    return _FORMATS[format](_Drawing(h, top, _means(h, values), list(_rows(h, top, max_depth))))


def edges(h: SynsetGraph, under: Key, max_depth: int | None = None) -> list[tuple[Synset, Synset]]:
    """Returns the (parent, child) pairs that `draw` draws, each once, depth first."""
    rows = _rows(h, h[under].node, max_depth)
    return [(Synset(h, row.parent), Synset(h, row.node)) for row in rows if row.parent >= 0]


@dataclass(frozen=True)
class _Row:
    """One row of the drawing: a node below one of its parents; `repeated` if the node is in an earlier row."""

    node: int
    parent: int  # -1 at the top
    depth: int
    repeated: bool
    last: tuple[bool, ...]  # for every level down to this one: whether the row is its parent's last child


@dataclass(frozen=True)
class _Drawing:
    h: SynsetGraph
    top: int
    means: npt.NDArray[np.float64] | None
    rows: list[_Row]

    def label(self, node: int) -> str:
        """Returns the NLTK name, the class index of a class, and the mean if there is one: "tabby.n.01  281  0.75"."""
        h = self.h
        parts = [h.tables.name(int(h.rows[node]))]
        if h.class_of_node[node] >= 0:
            parts.append(str(h.class_of_node[node]))
        if self.means is not None and not np.isnan(self.means[node]):
            parts.append(f"{self.means[node]:.4g}")
        return "  ".join(parts)

    @cached_property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest mean in the drawing. At least one node must have a mean."""
        assert self.means is not None
        drawn = self.means[[row.node for row in self.rows]]
        return float(np.nanmin(drawn)), float(np.nanmax(drawn))

    def colour(self, node: int) -> str:
        """Returns a colour from red (lowest mean) to yellow to green (highest); white for a node without a mean."""
        if self.means is None or np.isnan(self.means[node]):
            return "#ffffff"
        low, high = self.range
        t = (self.means[node] - low) / (high - low) if high > low else 0.5
        stops = np.array([[244, 165, 130], [255, 247, 188], [146, 197, 142]])
        r, g, b = (round(float(np.interp(t, [0, 0.5, 1], stop))) for stop in stops.T)
        return f"#{r:02x}{g:02x}{b:02x}"


def _rows(h: SynsetGraph, top: int, max_depth: int | None) -> Iterator[_Row]:
    """Yields the rows depth first, children in wnid order. A repeated node has no rows below it."""
    inner = _within(h, top, len(h) if max_depth is None else max_depth)
    seen: set[int] = set()
    stack = [_Row(top, -1, 0, False, ())]
    while stack:
        row = stack.pop()
        yield row if row.node not in seen else replace(row, repeated=True)
        below = h.dag.child[h.dag.edges_down(row.node)].tolist() if row.node in inner - seen else []
        seen.add(row.node)
        for i, child in reversed(list(enumerate(below))):
            stack.append(_Row(child, row.node, row.depth + 1, False, (*row.last, i == len(below) - 1)))


def _within(h: SynsetGraph, top: int, steps: int) -> set[int]:
    """Returns the nodes fewer than `steps` levels below the top, by the shortest path."""
    found: set[int] = set()
    level = {top}
    while level and steps > 0:
        found |= level
        level = {child for node in level for child in h.dag.child[h.dag.edges_down(node)].tolist()} - found
        steps -= 1
    return found


def _means(h: SynsetGraph, values: npt.ArrayLike | Mapping[Any, float] | None) -> npt.NDArray[np.float64] | None:
    """Returns float64 [nodes]: the mean of the values of the classes at or below each node; NaN where none has one."""
    if values is None:
        return None
    if isinstance(values, Mapping):
        by_class = np.full(h.num_classes, np.nan)
        for key, value in values.items():
            index = h[key].class_index
            if index is None:
                raise InputError(f"{h[key].name} is not a class: give values for classes only")
            by_class[index] = value
    else:
        by_class = np.asarray(values, np.float64)
        if by_class.shape != (h.num_classes,):
            raise InputError(f"values must have shape [{h.num_classes}], one per class, not {list(by_class.shape)}")
    known = ~np.isnan(by_class)
    indptr, ancestors, _ = h.dag.closure
    nodes = h.class_nodes[known]
    above = ancestors[csr_positions(indptr, nodes)]
    counts = np.bincount(above, minlength=len(h))
    sums = np.bincount(above, np.repeat(by_class[known], indptr[nodes + 1] - indptr[nodes]), minlength=len(h))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _text(drawing: _Drawing) -> str:
    lines = []
    for row in drawing.rows:
        bars = "".join("    " if last else "│   " for last in row.last[:-1])
        elbow = ("└── " if row.last[-1] else "├── ") if row.last else ""
        lines.append(
            bars
            + elbow
            + (f"↑ {drawing.h.tables.name(int(drawing.h.rows[row.node]))}" if row.repeated else drawing.label(row.node))
        )
    return "\n".join(lines) + "\n"


def _svg(drawing: _Drawing) -> str:
    """Draws one row per node, indented by depth, and a line to each child: dashed if it is in another parent's rows."""
    nodes = [row for row in drawing.rows if not row.repeated]
    place = {row.node: (10 + INDENT * row.depth, 12 + ROW * i) for i, row in enumerate(nodes)}
    labels = {row.node: drawing.label(row.node) for row in nodes}
    ends = {node: (x + 8 + CHAR * len(labels[node]), y) for node, (x, y) in place.items()}  # of the labels
    right = max(x + 4 for x, _ in ends.values())
    repeated = [row for row in drawing.rows if row.repeated]
    width, height = round(right + 10 + (40 if repeated else 0)), 24 + ROW * (len(nodes) - 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="monospace" font-size="11">',
        f"<title>{escape(drawing.label(drawing.top))}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<g fill="none" stroke="#999999">',
    ]
    for row in nodes[1:]:
        (left, top), (x, y) = place[row.parent], place[row.node]
        lines.append(f'<path class="edge" d="M{left} {top + 4}V{y}H{x - 4}"/>')
    for row in repeated:
        (x0, y0), (x1, y1) = ends[row.parent], ends[row.node]
        bend = max(x0, x1) + 36
        curve = f"M{x0:.1f} {y0}C{bend:.1f} {y0} {bend:.1f} {y1} {x1:.1f} {y1}"
        lines.append(f'<path class="edge" stroke-dasharray="3 3" d="{curve}"/>')
    lines.append("</g>")
    for row in nodes:
        x, y = place[row.node]
        lines.append(
            f'<g class="node"><circle cx="{x}" cy="{y}" r="4" fill="{drawing.colour(row.node)}" stroke="#555555"/>'
        )
        wnid, gloss = (
            drawing.h.tables.wnid(int(drawing.h.rows[row.node])),
            drawing.h.tables.gloss(int(drawing.h.rows[row.node])),
        )
        lines.append(f"<title>{escape(f'{wnid}: {gloss}')}</title>")
        lines.append(f'<text x="{x + 8}" y="{y + 4}" xml:space="preserve">{escape(labels[row.node])}</text></g>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _dot(drawing: _Drawing) -> str:
    lines = ["digraph hierarchy {", "  rankdir=LR;", '  node [shape=box, style="rounded,filled", fontsize=10];']
    for row in drawing.rows:
        wnid = drawing.h.tables.wnid(int(drawing.h.rows[row.node]))
        if not row.repeated:
            lines.append(
                f"  {wnid} [label={_quoted(drawing.label(row.node))}, fillcolor={_quoted(drawing.colour(row.node))}];"
            )
        if row.parent >= 0:
            lines.append(f"  {drawing.h.tables.wnid(int(drawing.h.rows[row.parent]))} -> {wnid};")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_FORMATS: dict[str, Callable[[_Drawing], str]] = {"text": _text, "svg": _svg, "dot": _dot}
