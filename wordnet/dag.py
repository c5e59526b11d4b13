"""A directed acyclic graph in compressed sparse rows: what hierarchy.py asks of the graph, and nothing of WordNet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Dag:
    """Nodes 0 … n-1; node i's parents are ``parents[indptr[i]:indptr[i + 1]]``, in an order that is kept.

    Args:
        indptr: integers [n + 1].
        parents: integers [edges].
    """

    def __init__(self, indptr: Array, parents: Array) -> None:
        self.indptr = indptr
        self.parents = parents

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def edges(self, node: int) -> slice:
        """Where this node's parents stand in ``parents``."""
        return slice(int(self.indptr[node]), int(self.indptr[node + 1]))

    def edges_down(self, node: int) -> Array:
        """The edges, as positions in ``parents``, that lead to this node from its children, these ascending."""
        indptr, edges, _ = self._down
        return edges[indptr[node] : indptr[node + 1]]

    @cached_property
    def child(self) -> Array:
        """int32 [edges]: the lower end of every edge."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.indptr))

    @cached_property
    def _down(self) -> tuple[Array, Array, Array]:
        """The same edges sorted by parent, then child: indptr [n + 1], edges, children."""
        edges = np.argsort(self.parents, kind="stable")
        counts = np.bincount(self.parents, minlength=len(self))
        return np.concatenate([[0], np.cumsum(counts)]), edges, self.child[edges]

    def up(self, nodes: Iterable[int]) -> Array:
        """These nodes and all their ancestors, nearest first, equally near ones as the parents' order finds them."""
        return _walk(self.indptr, self.parents, nodes)

    def down(self, nodes: Iterable[int]) -> Array:
        """These nodes and all their descendants, nearest first, equally near ones as ascending children find them."""
        indptr, _, children = self._down
        return _walk(indptr, children, nodes)

    @cached_property
    def depths(self) -> tuple[Array, Array]:
        """int32 [n] twice: edges on the shortest and on the longest path from a root; roots have 0.

        Raises:
            ValueError: the graph has a cycle.
        """
        has_parents = np.diff(self.indptr) > 0
        starts = self.indptr[:-1][has_parents]
        low, high = np.zeros((2, len(self)), np.int32)
        for _ in range(len(self) + 1):
            before = low.copy(), high.copy()
            if starts.size:
                low[has_parents] = np.minimum.reduceat(low[self.parents], starts) + 1
                high[has_parents] = np.maximum.reduceat(high[self.parents], starts) + 1
            if np.array_equal(before[0], low) and np.array_equal(before[1], high):
                return low, high
        raise ValueError("the graph has a cycle")

    def paths(self, node: int) -> Iterator[tuple[int, ...]]:
        """Every path from a root to this node, root first, in the order of the parents."""
        parents = self.parents[self.edges(node)].tolist()
        if not parents:
            yield (node,)
        for parent in parents:
            for path in self.paths(parent):
                yield (*path, node)

    def longest_path(self, node: int) -> tuple[int, ...]:
        """The longest of :meth:`paths`; among several, at every step up from the node the first parent listed."""
        high = self.depths[1]
        path = [node]
        while (parents := self.parents[self.edges(path[-1])]).size:
            path.append(int(parents[np.argmax(high[parents])]))
        return tuple(reversed(path))


def gather(indptr: Array, rows: Array) -> Array:
    """The positions ``indptr[r] … indptr[r + 1] - 1`` of all ``rows`` one after the other."""
    starts, counts = indptr[rows], indptr[rows + 1] - indptr[rows]
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if ends.size else 0) + np.repeat(starts - ends + counts, counts)


def _walk(indptr: Array, neighbours: Array, nodes: Iterable[int]) -> Array:
    """int64: the nodes and all that can be reached, each once, breadth first. A whole level is one step."""
    seen = np.zeros(len(indptr) - 1, np.bool_)
    last = np.empty(len(seen), np.int64)  # where a node was last found in this level: tells repetitions without sorting
    levels = []
    found = np.fromiter(nodes, np.int64)
    while found.size:
        positions = np.arange(found.size)
        last[found[::-1]] = positions[::-1]  # assigned in reverse, so the first finding stays
        frontier = found[last[found] == positions]
        seen[frontier] = True
        levels.append(frontier)
        found = neighbours[gather(indptr, frontier)]
        found = found[~seen[found]]
    return np.concatenate(levels) if levels else found
