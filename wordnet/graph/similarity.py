"""How near synsets are to each other: for pairs, and for all pairs of classes.

Everything here is of the whole graph, with every parent a synset has. Conventions:

lowest common ancestor
    Of the common ancestors (a synset is its own), ``by="depth"`` takes the deepest: the greatest depth on the
    longest path, as NLTK's ``lowest_common_hypernyms``. ``by="height"`` takes the lowest: the least height, which is
    how severity of mistakes is measured (Bertinetto et al. 2020, "Making Better Mistakes", arXiv:1912.09393). In a
    tree they are the same; here they are not. Equally deep ones are told apart by the least height, equally low ones
    by the greatest depth, and what is then still equal by the first wnid.
distance
    Edges on the shortest way up to a common ancestor and down again: NLTK's ``shortest_path_distance``.
path
    ``1 / (1 + distance)``: NLTK's ``path_similarity``.
wup
    Wu and Palmer 1994, "Verb semantics and lexical selection", as NLTK's ``wup_similarity`` computes it on a graph:
    ``2 d / (2 d + distance(a, s) + distance(b, s))``, s the common ancestor with the greatest *shortest* path from
    the root (a itself if it is one of those, else the first by NLTK name), d the synsets on its *longest* path. So
    it may differ a little between (a, b) and (b, a), and for a noun in 45 it is less than 1 of (a, a): one to which
    a short path leads besides a longer one, above which is thus a synset with a longer shortest path than its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import InputError
from imgtool.wordnet.graph.types import SynsetGraph

IntArray = npt.NDArray[np.int64]
Value: TypeAlias = Callable[[IntArray, IntArray], npt.NDArray[np.integer]]
By: TypeAlias = Literal["depth", "height"]

PAIRS_AT_ONCE = 1 << 16  # bounds the memory that a question about many pairs takes
COLUMNS_AT_ONCE = 1 << 11  # and that of a matrix besides its own


def lowest_first(h: SynsetGraph, by: By) -> IntArray:
    """int64 [2, nodes]: the nodes, the first to be chosen as lowest common ancestor first; and each node's place.

    Raises:
        InputError: ``by`` is neither "depth" nor "height".
    """
    if by not in ("depth", "height"):
        raise InputError(f"no convention {by!r} for the lowest common ancestor: 'depth' or 'height'")
    depth, height = -h.depths[1], h.heights
    keys = (height, depth) if by == "depth" else (depth, height)
    return h.kept(f"lowest first by {by}", lambda: _with_places(np.lexsort(keys)))


def is_a(h: SynsetGraph, a: IntArray, b: IntArray) -> npt.NDArray[np.bool_]:
    """bool [pairs]: ``a[i]`` is at or below ``b[i]``. As below, a and b are nodes, int64 [pairs]."""
    result = np.empty(len(a), np.bool_)
    for some in _parts(len(a)):
        result[some] = h.dag.steps_up(a[some], b[some]) >= 0
    return result


def lca(h: SynsetGraph, a: IntArray, b: IntArray, by: By) -> IntArray:
    """int64 [pairs]: the nodes that are the lowest common ancestors."""
    return _first_of_pairs(h, a, b, lowest_first(h, by))


def distance(h: SynsetGraph, a: IntArray, b: IntArray) -> IntArray:
    """int64 [pairs]: edges on the shortest way between them."""
    return _least_of_pairs(h, a, b, lambda _, steps: steps)


def path(h: SynsetGraph, a: IntArray, b: IntArray) -> npt.NDArray[np.float64]:
    """float64 [pairs]: path similarity."""
    return 1 / (1 + distance(h, a, b))


def wup(h: SynsetGraph, a: IntArray, b: IntArray) -> npt.NDArray[np.float64]:
    """float64 [pairs]: Wu and Palmer's similarity."""
    s = _first_of_pairs(h, a, b, _wup_first(h))
    low, high = h.dag.depths
    s = np.where((low[a] == low[s]) & is_a(h, b, a), a, s)
    return _wup(high[s] + 1, distance(h, a, s) + distance(h, b, s))


def ancestor_matrix(h: SynsetGraph) -> npt.NDArray[np.bool_]:
    """bool [classes, nodes]: the class is at or below the node."""
    matrix = np.zeros((h.num_classes, len(h)), np.bool_)
    class_index, above, _ = _above_classes(h)
    matrix[class_index, above] = True
    return matrix


def lca_matrix(h: SynsetGraph, by: By) -> npt.NDArray[np.int32]:
    """int32 [classes, classes]: the node that is the lowest common ancestor of each two classes."""
    return _first_above(h, lowest_first(h, by))


def _lca_height(h: SynsetGraph) -> npt.NDArray[np.int16]:
    return _least_above(h, lambda above, _: h.dag.heights[above], 0)


def _lca_depth(h: SynsetGraph) -> npt.NDArray[np.int16]:
    return -_least_above(h, lambda above, _: -h.dag.depths[1][above], 0)


def _distance(h: SynsetGraph) -> npt.NDArray[np.int16]:
    return _least_above(h, lambda _, steps: steps, 1)


def _path(h: SynsetGraph) -> npt.NDArray[np.float32]:
    similarity: npt.NDArray[np.float32] = np.float32(1) / (h.class_matrix("distance") + np.float32(1))
    return similarity


def _class_wup(h: SynsetGraph) -> npt.NDArray[np.float32]:
    low, high = h.depths
    s = _first_above(h, _wup_first(h))
    a = np.broadcast_to(h.class_nodes[:, None], s.shape)
    a_is_above = h.ancestor_matrix()[:, h.class_nodes].T
    s = np.where((low[a] == low[s]) & a_is_above, a, s)
    edges = np.zeros(s.shape, np.int16)
    for some, table in _tables_of_least(h, lambda _, steps: steps, 1):
        columns = np.arange(table.shape[1])
        edges[:, some] += table[s[:, some], columns]
        edges[some] += table[s[some], columns[:, None]]
    return _wup(high[s] + 1, edges).astype(np.float32)


MATRICES: dict[str, Callable[[SynsetGraph], npt.NDArray[np.generic]]] = {
    "lca_height": _lca_height,
    "lca_depth": _lca_depth,
    "distance": _distance,
    "path": _path,
    "wup": _class_wup,
}


def class_matrix(h: SynsetGraph, kind: str) -> npt.NDArray[np.generic]:
    """The matrix over all pairs of classes: see :meth:`Hierarchy.class_matrix`, which keeps it."""
    if kind not in MATRICES:
        raise InputError(f"no matrix {kind!r} of the classes: there are {', '.join(map(repr, MATRICES))}")
    return MATRICES[kind](h)


def _wup(depth: npt.NDArray[np.integer], distance: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    return 2 * depth / (distance + 2 * depth)


def _wup_first(h: SynsetGraph) -> IntArray:
    """int64 [2, nodes]: the nodes, the first to be chosen as wup's ancestor first; and each node's place."""

    def order() -> IntArray:
        inner = np.flatnonzero(h.heights)  # a childless node is common to none but itself: its name does not matter
        names = [h.tables.name(row) for row in h.rows[inner].tolist()]
        by_name = np.zeros(len(h), np.int64)
        by_name[inner[sorted(range(inner.size), key=names.__getitem__)]] = np.arange(inner.size)
        return _with_places(np.lexsort((by_name, -h.depths[0])))

    return h.kept("wup first", order)


def _with_places(order: IntArray) -> IntArray:
    """An order of all nodes, and the place of each node in it."""
    places = np.empty_like(order)
    places[order] = np.arange(order.size)
    return np.stack([order, places])


def _first_of_pairs(h: SynsetGraph, a: IntArray, b: IntArray, order: IntArray) -> IntArray:
    """int64 [pairs]: the common ancestor that comes first in ``order``, [2, nodes]."""
    nodes, place = order
    return nodes[_least_of_pairs(h, a, b, lambda above, _: place[above])]


def _first_above(h: SynsetGraph, order: IntArray) -> npt.NDArray[np.int32]:
    """int32 [classes, classes]: the common ancestor that comes first in ``order``, [2, nodes]."""
    nodes, place = order
    return nodes.astype(np.int32)[_least_above(h, lambda above, _: place[above], 0)]


def _parts(pairs: int) -> Iterator[slice]:
    return (slice(start, start + PAIRS_AT_ONCE) for start in range(0, pairs, PAIRS_AT_ONCE))


def _least_of_pairs(h: SynsetGraph, a: IntArray, b: IntArray, value: Value) -> IntArray:
    """int64 [pairs]: the least ``value(common ancestor, steps)`` of each pair; the root is common to all."""
    least = np.empty(len(a), np.int64)
    for some in _parts(len(a)):
        pair, above, steps = h.dag.common(a[some], b[some])
        least[some] = np.minimum.reduceat(value(above, steps), np.flatnonzero(np.append(True, np.diff(pair))))
    return least


def _above_classes(h: SynsetGraph) -> tuple[IntArray, IntArray, IntArray]:
    """Every (class index, node at or above it, edges on the shortest way up): three parallel arrays."""
    if not h.num_classes:
        raise InputError("this hierarchy has no classes, so there is no matrix of them; load a class set")
    indptr, ancestors, steps = h.dag.closure
    counts = np.diff(indptr)
    class_index = np.repeat(h.class_of_node, counts)
    chosen = class_index >= 0
    return class_index[chosen], ancestors[chosen], steps[chosen]


def _tables_of_least(h: SynsetGraph, value: Value, step: int) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """For some of the classes after the other, int [nodes, classes]: over the synsets s at or above both the node and
    the class, the least ``value(s, edges up from the class)`` plus ``step`` for every edge up from the node."""
    class_index, above, steps = _above_classes(h)
    values = value(above, steps)
    dtype = np.int16 if max(values.max(), -values.min()) < 1 << 14 else np.int32
    for start in range(0, h.num_classes, COLUMNS_AT_ONCE):
        some = slice(start, min(start + COLUMNS_AT_ONCE, h.num_classes))
        here = (some.start <= class_index) & (class_index < some.stop)
        table = np.full((len(h), some.stop - some.start), np.iinfo(dtype).max // 2, dtype)
        table[above[here], class_index[here] - start] = values[here]
        h.dag.pass_down(table, step)
        yield some, table


def _least_above(h: SynsetGraph, value: Value, step: int) -> npt.NDArray[Any]:
    """int16 (int32 if the values are large) [classes, classes]: those tables' rows of the classes."""
    blocks = (table[h.class_nodes] for _, table in _tables_of_least(h, value, step))
    return np.concatenate(list(blocks), axis=1)
