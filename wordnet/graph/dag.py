"""A directed acyclic graph in compressed sparse rows: nothing of WordNet is known here."""

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

    def above(self, node: int) -> list[int]:
        """This node and all its ancestors, ordered as :meth:`up` does: from a single node this takes less time."""
        indptr, parents = self.indptr.data, self.parents.data
        found = [node]
        for low in found:
            found += [high for high in parents[indptr[low] : indptr[low + 1]] if high not in found]
        return found

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
        low, high = (_lengths(self.indptr, self.parents, best) for best in (np.minimum, np.maximum))
        return low, high

    @cached_property
    def heights(self) -> Array:
        """int32 [n]: edges on the longest way down; nodes without children have 0.

        Raises:
            ValueError: the graph has a cycle.
        """
        indptr, _, children = self._down
        return _lengths(indptr, children, np.maximum)

    @cached_property
    def closure(self) -> tuple[Array, Array, Array]:
        """Every node's ancestors, itself among them, in compressed sparse rows.

        Returns:
            indptr int64 [n + 1]; ancestors int32, ascending within a node; steps int16, parallel to the ancestors:
            edges on the shortest way up to it.
        """
        n, counts = len(self), np.diff(self.indptr)
        node = above = np.arange(n)
        found = [(node * n + above) << 16]
        while (edges := gather(self.indptr, above)).size:
            pairs = _distinct(np.repeat(node, counts[above]) * n + self.parents[edges])
            node, above = np.divmod(pairs, n)
            found.append(pairs << 16 | len(found))
        packed = np.sort(np.concatenate(found))  # by node, ancestor, and then steps: the fewest come first
        first = np.append(True, packed[1:] >> 16 != packed[:-1] >> 16)[: packed.size]
        node, above = np.divmod(packed[first] >> 16, n)
        indptr = np.searchsorted(node, np.arange(n + 1))
        return indptr, above.astype(np.int32), (packed[first] & 0xFFFF).astype(np.int16)

    def common(self, a: Array, b: Array) -> tuple[Array, Array, Array]:
        """All common ancestors of ``a[i]`` and ``b[i]``, for every i.

        Args:
            a, b: nodes, integers [pairs].

        Returns:
            pair int64, ascending; the common ancestor int32, ascending within a pair; int16, edges on the shortest
            way from a up to it and down again to b. Three parallel arrays; a pair without any has no entry.
        """
        indptr, ancestors, steps = self.closure
        at_a, at_b = gather(indptr, a), gather(indptr, b)
        pair_a, pair_b = (np.repeat(np.arange(len(a)), indptr[x + 1] - indptr[x]) for x in (a, b))
        key_a, key_b = pair_a * len(self) + ancestors[at_a], pair_b * len(self) + ancestors[at_b]
        where = np.searchsorted(key_b, key_a)
        where[where == key_b.size] = 0
        same = key_b[where] == key_a if key_b.size else np.zeros(0, np.bool_)
        at_a, at_b = at_a[same], at_b[where[same]]
        return pair_a[same], ancestors[at_a], steps[at_a] + steps[at_b]

    def steps_up(self, low: Array, high: Array) -> Array:
        """int64 [pairs]: edges on the shortest way from ``low[i]`` up to ``high[i]``; -1 where it is not above."""
        indptr, ancestors, steps = self.closure
        at, counts = gather(indptr, low), indptr[low + 1] - indptr[low]
        same = ancestors[at] == np.repeat(high, counts)
        result = np.full(len(low), -1)
        result[np.repeat(np.arange(len(low)), counts)[same]] = steps[at[same]]
        return result

    def pass_down(self, table: Array, step: int) -> None:
        """Lower every node's row of ``table`` [n, columns], in place, to the least of it and the parents' + step.

        From the roots down, so that what a row had reaches everything below it.
        """
        counts, level = np.diff(self.indptr), self.depths[1]
        order = np.argsort(level, kind="stable")
        for nodes in np.split(order, np.flatnonzero(np.diff(level[order])) + 1)[1:]:
            for k in range(counts[nodes].max()):
                some = nodes[counts[nodes] > k]
                table[some] = np.minimum(table[some], table[self.parents[self.indptr[some] + k]] + step)

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


def _distinct(values: Array) -> Array:
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])[: values.size]]


def _lengths(indptr: Array, neighbours: Array, best: np.ufunc) -> Array:
    """int32: edges on the shortest or longest (``best``: minimum or maximum) way to a node without neighbours."""
    going_on = np.diff(indptr) > 0
    starts = indptr[:-1][going_on]
    lengths = np.zeros(len(indptr) - 1, np.int32)
    for _ in range(len(lengths) + 1):
        before = lengths.copy()
        if starts.size:
            lengths[going_on] = best.reduceat(lengths[neighbours], starts) + 1
        if np.array_equal(before, lengths):
            return lengths
    raise ValueError("the graph has a cycle")


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
