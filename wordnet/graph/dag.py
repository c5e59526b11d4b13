"""A directed acyclic graph in compressed sparse rows (CSR). Nothing here depends on WordNet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Dag:
    """A graph of nodes 0 … n-1. The parents of node i are `parents[indptr[i]:indptr[i + 1]]`, and their order is kept.

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
        """Returns the slice of `parents` that holds the parents of a node."""
        return slice(int(self.indptr[node]), int(self.indptr[node + 1]))

    def edges_down(self, node: int) -> Array:
        """Returns the edges from a node's children to it, as positions in `parents`, by ascending child."""
        indptr, edges, _ = self._down
        return edges[indptr[node] : indptr[node + 1]]

    @cached_property
    def child(self) -> Array:
        """int32 [edges]: the child of every edge."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.indptr))

    @cached_property
    def _down(self) -> tuple[Array, Array, Array]:
        """The same edges sorted by parent, then child: indptr [n + 1], edges, children."""
        edges = np.argsort(self.parents, kind="stable")
        counts = np.bincount(self.parents, minlength=len(self))
        return np.concatenate([[0], np.cumsum(counts)]), edges, self.child[edges]

    def above(self, node: int) -> list[int]:
        """Returns a node and all its ancestors in the order of `up`, which is slower for a single node."""
        indptr, parents = self.indptr.data, self.parents.data
        found = [node]
        for low in found:
            found += [high for high in parents[indptr[low] : indptr[low + 1]] if high not in found]
        return found

    def up(self, nodes: Iterable[int]) -> Array:
        """Returns nodes and all their ancestors, nearest first; equally near ones in the order of the parents."""
        return _walk(self.indptr, self.parents, nodes)

    def down(self, nodes: Iterable[int]) -> Array:
        """Returns nodes and all their descendants, nearest first; equally near ones by ascending child."""
        indptr, _, children = self._down
        return _walk(indptr, children, nodes)

    @cached_property
    def depths(self) -> tuple[Array, Array]:
        """Two int32 [n]: the number of edges on the shortest and on the longest path from a root; 0 for a root.

        Raises:
            ValueError: the graph has a cycle.
        """
        low, high = (_lengths(self.indptr, self.parents, best) for best in (np.minimum, np.maximum))
        return low, high

    @cached_property
    def heights(self) -> Array:
        """int32 [n]: the number of edges on the longest path down; 0 for a node without children.

        Raises:
            ValueError: the graph has a cycle.
        """
        indptr, _, children = self._down
        return _lengths(indptr, children, np.maximum)

    @cached_property
    def closure(self) -> tuple[Array, Array, Array]:
        """The ancestors of every node, the node itself included, in compressed sparse rows.

        Returns:
            indptr, int64 [n + 1]; ancestors, int32, ascending within a node; steps, int16, parallel to the ancestors:
                the number of edges on the shortest path up to the ancestor.
        """
        n, counts = len(self), np.diff(self.indptr)
        node = above = np.arange(n)
        found = [(node * n + above) << 16]
        while (edges := csr_positions(self.indptr, above)).size:
            pairs = _distinct(np.repeat(node, counts[above]) * n + self.parents[edges])
            node, above = np.divmod(pairs, n)
            found.append(pairs << 16 | len(found))
        packed = np.sort(np.concatenate(found))  # by node, ancestor and steps, the fewest steps first
        first = np.append(True, packed[1:] >> 16 != packed[:-1] >> 16)[: packed.size]
        node, above = np.divmod(packed[first] >> 16, n)
        indptr = np.searchsorted(node, np.arange(n + 1))
        return indptr, above.astype(np.int32), (packed[first] & 0xFFFF).astype(np.int16)

    def common(self, a: Array, b: Array) -> tuple[Array, Array, Array]:
        """Returns all common ancestors of `a[i]` and `b[i]`, for every i.

        Args:
            a: nodes, integers [pairs].
            b: likewise.

        Returns:
            Three parallel arrays: the pair, int64, ascending; the common ancestor, int32, ascending within a pair; the
                number of edges on the shortest path from a up to the ancestor and down to b, int16. A pair without
                common ancestors has no entry.
        """
        indptr, ancestors, steps = self.closure
        at_a, at_b = csr_positions(indptr, a), csr_positions(indptr, b)
        pair_a, pair_b = (np.repeat(np.arange(len(a)), indptr[x + 1] - indptr[x]) for x in (a, b))
        key_a, key_b = pair_a * len(self) + ancestors[at_a], pair_b * len(self) + ancestors[at_b]
        match = np.searchsorted(key_b, key_a)
        match[match == key_b.size] = 0
        same = key_b[match] == key_a if key_b.size else np.zeros(0, np.bool_)
        at_a, at_b = at_a[same], at_b[match[same]]
        return pair_a[same], ancestors[at_a], steps[at_a] + steps[at_b]

    def steps_up(self, low: Array, high: Array) -> Array:
        """Returns int64 [pairs]: edges on the shortest path from `low[i]` up to `high[i]`; -1 where there is none."""
        indptr, ancestors, steps = self.closure
        at, counts = csr_positions(indptr, low), indptr[low + 1] - indptr[low]
        same = ancestors[at] == np.repeat(high, counts)
        result = np.full(len(low), -1)
        result[np.repeat(np.arange(len(low)), counts)[same]] = steps[at[same]]
        return result

    def pass_down(self, table: Array, step: int) -> None:
        """Lowers every row of `table` [n, columns], in place, to the minimum of itself and its parents' rows + step.

        Works from the roots down, so that a value reaches all descendants.
        """
        counts, level = np.diff(self.indptr), self.depths[1]
        order = np.argsort(level, kind="stable")
        for nodes in np.split(order, np.flatnonzero(np.diff(level[order])) + 1)[1:]:
            for k in range(counts[nodes].max()):
                some = nodes[counts[nodes] > k]
                table[some] = np.minimum(table[some], table[self.parents[self.indptr[some] + k]] + step)

    def paths(self, node: int) -> Iterator[tuple[int, ...]]:
        """Yields every path from a root to a node, root first, in the order of the parents."""
        parents = self.parents[self.edges(node)].tolist()
        if not parents:
            yield (node,)
        for parent in parents:
            for path in self.paths(parent):
                yield (*path, node)

    def longest_path(self, node: int) -> tuple[int, ...]:
        """Returns the longest of `paths`. Among equally long ones, takes the first parent at every step up."""
        high = self.depths[1]
        path = [node]
        while (parents := self.parents[self.edges(path[-1])]).size:
            path.append(int(parents[np.argmax(high[parents])]))
        return tuple(reversed(path))


def csr_positions(indptr: Array, rows: Array) -> Array:
    """Returns the concatenated positions `indptr[r] … indptr[r + 1] - 1` of all rows r."""
    starts, counts = indptr[rows], indptr[rows + 1] - indptr[rows]
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if ends.size else 0) + np.repeat(starts - ends + counts, counts)


def _distinct(values: Array) -> Array:
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])[: values.size]]


def _lengths(indptr: Array, neighbours: Array, best: np.ufunc) -> Array:
    """Returns int32 [n]: the edges on the shortest or longest (`best`: minimum or maximum) path to a node without
    neighbours."""
    has_neighbours = np.diff(indptr) > 0
    starts = indptr[:-1][has_neighbours]
    lengths = np.zeros(len(indptr) - 1, np.int32)
    for _ in range(len(lengths) + 1):
        before = lengths.copy()
        if starts.size:
            lengths[has_neighbours] = best.reduceat(lengths[neighbours], starts) + 1
        if np.array_equal(before, lengths):
            return lengths
    raise ValueError("the graph has a cycle")


def _walk(indptr: Array, neighbours: Array, nodes: Iterable[int]) -> Array:
    """Returns int64: the nodes and all nodes reachable from them, each once, breadth first, one level at a time."""
    seen = np.zeros(len(indptr) - 1, np.bool_)
    last = np.empty(len(seen), np.int64)  # where this level last found a node: finds repetitions without sorting
    levels = []
    found = np.fromiter(nodes, np.int64)
    while found.size:
        positions = np.arange(found.size)
        last[found[::-1]] = positions[::-1]  # assigned in reverse, so that the first one remains
        frontier = found[last[found] == positions]
        seen[frontier] = True
        levels.append(frontier)
        found = neighbours[csr_positions(indptr, frontier)]
        found = found[~seen[found]]
    return np.concatenate(levels) if levels else found
