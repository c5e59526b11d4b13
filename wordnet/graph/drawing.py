"""The hierarchy below a synset as an image: text, SVG or DOT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import InputError
from imgtool.wordnet.graph.dag import gather
from imgtool.wordnet.graph.synset import Synset
from imgtool.wordnet.graph.types import Key, SynsetGraph

ROW, INDENT, CHAR = 18, 26, 6.7  # of the SVG, in pixels: between rows, between levels, of a letter in 11px monospace


def draw(
    h: SynsetGraph,
    under: Key,
    values: npt.ArrayLike | Mapping[Any, float] | None = None,
    format: str = "text",
    max_depth: int | None = None,
) -> str:
    """The synsets at or below a synset, as ``h.draw`` gives them.

    Args:
        under: the key of the synset at the top.
        values: a number a class, to be shown and (but in text) coloured from the least to the greatest: floats
            [classes] or a mapping from keys of classes. Above the classes it is the mean over those at or below that
            have a value, each counted once. None and nan are no value.
        format: ``"text"``, with box characters; ``"svg"``, self-contained; ``"dot"``, for Graphviz. In SVG and DOT a
            synset with several parents in the image stands once, with an edge from each. In text it stands under
            the first, and under the others as a reference, "↑ name", with nothing below.
        max_depth: how many steps below the top is drawn, by the shortest way; None for all. Means are over
            all classes just the same.

    Returns:
        the image, ending in a newline. Children are in wnid order.

    Raises:
        UnknownSynsetError: no synset goes by a key.
        InputError: another format, values of another shape, or for what is no class.
    """
    if format not in _FORMATS:
        raise InputError(f"no format {format!r}: there are {', '.join(map(repr, _FORMATS))}")
    if max_depth is not None and max_depth < 0:
        raise InputError(f"max_depth must be at least 0, not {max_depth}")
    top = h[under].node
    return _FORMATS[format](_Image(h, top, _means(h, values), list(_rows(h, top, max_depth))))


def edges(h: SynsetGraph, under: Key, max_depth: int | None = None) -> list[tuple[Synset, Synset]]:
    """The (parent, child) pairs that :func:`draw` draws, each once, depth first."""
    rows = _rows(h, h[under].node, max_depth)
    return [(Synset(h, row.parent), Synset(h, row.node)) for row in rows if row.parent >= 0]


@dataclass(frozen=True)
class _Row:
    """A node where the image comes to it, on the way down from the top; ``again``: it has been before."""

    node: int
    parent: int  # -1 at the top
    depth: int
    again: bool
    last: tuple[bool, ...]  # for every level down to this one: it is the last of its parent's children


@dataclass(frozen=True)
class _Image:
    h: SynsetGraph
    top: int
    means: npt.NDArray[np.float64] | None
    rows: list[_Row]

    def label(self, node: int) -> str:
        """``tabby.n.01  281  0.75``: NLTK name, class index if it is a class, mean value if there are values."""
        h = self.h
        parts = [h.tables.name(int(h.rows[node]))]
        if h.class_of_node[node] >= 0:
            parts.append(str(h.class_of_node[node]))
        if self.means is not None and not np.isnan(self.means[node]):
            parts.append(f"{self.means[node]:.4g}")
        return "  ".join(parts)

    @cached_property
    def range(self) -> tuple[float, float]:
        """The least and the greatest mean in the image; only asked for where a node drawn has one."""
        assert self.means is not None
        drawn = self.means[[row.node for row in self.rows]]
        return float(np.nanmin(drawn)), float(np.nanmax(drawn))

    def colour(self, node: int) -> str:
        """From red (the least value in the image) over yellow to green; white without a value."""
        if self.means is None or np.isnan(self.means[node]):
            return "#ffffff"
        low, high = self.range
        t = (self.means[node] - low) / (high - low) if high > low else 0.5
        stops = np.array([[244, 165, 130], [255, 247, 188], [146, 197, 142]])
        r, g, b = (round(float(np.interp(t, [0, 0.5, 1], stop))) for stop in stops.T)
        return f"#{r:02x}{g:02x}{b:02x}"


def _rows(h: SynsetGraph, top: int, max_depth: int | None) -> Iterator[_Row]:
    """Depth first, children in wnid order. Below a node that has been before nothing comes again."""
    inner = _within(h, top, len(h) if max_depth is None else max_depth)
    seen: set[int] = set()
    stack = [_Row(top, -1, 0, False, ())]
    while stack:
        row = stack.pop()
        yield row if row.node not in seen else replace(row, again=True)
        below = h.dag.child[h.dag.edges_down(row.node)].tolist() if row.node in inner - seen else []
        seen.add(row.node)
        for i, child in reversed(list(enumerate(below))):
            stack.append(_Row(child, row.node, row.depth + 1, False, (*row.last, i == len(below) - 1)))


def _within(h: SynsetGraph, top: int, steps: int) -> set[int]:
    """The nodes fewer than so many steps below the top, by the shortest way."""
    found: set[int] = set()
    level = {top}
    while level and steps > 0:
        found |= level
        level = {child for node in level for child in h.dag.child[h.dag.edges_down(node)].tolist()} - found
        steps -= 1
    return found


def _means(h: SynsetGraph, values: npt.ArrayLike | Mapping[Any, float] | None) -> npt.NDArray[np.float64] | None:
    """float64 [nodes]: the mean over the classes at or below each node that have a value; nan where none has."""
    if values is None:
        return None
    if isinstance(values, Mapping):
        by_class = np.full(h.num_classes, np.nan)
        for key, value in values.items():
            index = h[key].class_index
            if index is None:
                raise InputError(f"{h[key].name} is no class: values are given for classes, means are taken above them")
            by_class[index] = value
    else:
        by_class = np.asarray(values, np.float64)
        if by_class.shape != (h.num_classes,):
            raise InputError(f"values must be [{h.num_classes}], a number a class, not {list(by_class.shape)}")
    known = ~np.isnan(by_class)
    indptr, ancestors, _ = h.dag.closure
    nodes = h.class_nodes[known]
    above = ancestors[gather(indptr, nodes)]
    counts = np.bincount(above, minlength=len(h))
    sums = np.bincount(above, np.repeat(by_class[known], indptr[nodes + 1] - indptr[nodes]), minlength=len(h))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _text(p: _Image) -> str:
    lines = []
    for row in p.rows:
        bars = "".join("    " if last else "│   " for last in row.last[:-1])
        elbow = ("└── " if row.last[-1] else "├── ") if row.last else ""
        # What comes again is a reference: what is below it stands where it came first.
        lines.append(
            bars + elbow + (f"↑ {p.h.tables.name(int(p.h.rows[row.node]))}" if row.again else p.label(row.node))
        )
    return "\n".join(lines) + "\n"


def _svg(p: _Image) -> str:
    """A row a node, indented by depth; a line to each child, a dashed curve to one that hangs elsewhere as well."""
    nodes = [row for row in p.rows if not row.again]
    place = {row.node: (10 + INDENT * row.depth, 12 + ROW * i) for i, row in enumerate(nodes)}
    labels = {row.node: p.label(row.node) for row in nodes}
    ends = {node: (x + 8 + CHAR * len(labels[node]), y) for node, (x, y) in place.items()}  # of the labels
    right = max(x + 4 for x, _ in ends.values())
    again = [row for row in p.rows if row.again]
    width, height = round(right + 10 + (40 if again else 0)), 24 + ROW * (len(nodes) - 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="monospace" font-size="11">',
        f"<title>{escape(p.label(p.top))}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<g fill="none" stroke="#999999">',
    ]
    for row in nodes[1:]:
        (left, top), (x, y) = place[row.parent], place[row.node]
        lines.append(f'<path class="edge" d="M{left} {top + 4}V{y}H{x - 4}"/>')
    for row in again:
        (x0, y0), (x1, y1) = ends[row.parent], ends[row.node]
        bend = max(x0, x1) + 36
        curve = f"M{x0:.1f} {y0}C{bend:.1f} {y0} {bend:.1f} {y1} {x1:.1f} {y1}"
        lines.append(f'<path class="edge" stroke-dasharray="3 3" d="{curve}"/>')
    lines.append("</g>")
    for row in nodes:
        x, y = place[row.node]
        lines.append(f'<g class="node"><circle cx="{x}" cy="{y}" r="4" fill="{p.colour(row.node)}" stroke="#555555"/>')
        wnid, gloss = p.h.tables.wnid(int(p.h.rows[row.node])), p.h.tables.gloss(int(p.h.rows[row.node]))
        lines.append(f"<title>{escape(f'{wnid}: {gloss}')}</title>")
        lines.append(f'<text x="{x + 8}" y="{y + 4}" xml:space="preserve">{escape(labels[row.node])}</text></g>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _dot(p: _Image) -> str:
    lines = ["digraph hierarchy {", "  rankdir=LR;", '  node [shape=box, style="rounded,filled", fontsize=10];']
    for row in p.rows:
        wnid = p.h.tables.wnid(int(p.h.rows[row.node]))
        if not row.again:
            lines.append(f"  {wnid} [label={_quoted(p.label(row.node))}, fillcolor={_quoted(p.colour(row.node))}];")
        if row.parent >= 0:
            lines.append(f"  {p.h.tables.wnid(int(p.h.rows[row.parent]))} -> {wnid};")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_FORMATS: dict[str, Callable[[_Image], str]] = {"text": _text, "svg": _svg, "dot": _dot}
