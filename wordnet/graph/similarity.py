"""Similarity of synsets: of pairs, and of all pairs of classes.

All relations use the whole graph, with every parent of a synset. Conventions:

- **Lowest common ancestor.** A synset is one of its own ancestors here. `by="depth"` takes the common ancestor of
  greatest depth on the longest path, as NLTK's `lowest_common_hypernyms`. `by="height"` takes the one of least height,
  which is how the severity of mistakes is measured (Bertinetto et al. 2020, "Making Better Mistakes",
  arXiv:1912.09393). In a tree the two are the same; here they are not. Ties in depth are broken by the least height,
  ties in height by the greatest depth, and ties in both by the first wnid.
- **Distance.** The number of edges on the shortest path up to a common ancestor and down again: NLTK's
  `shortest_path_distance`.
- **Path similarity.** `1 / (1 + distance)`: NLTK's `path_similarity`.
- **Wu-Palmer similarity (wup).** Wu and Palmer 1994, "Verb semantics and lexical selection", as NLTK's
  `wup_similarity` computes it on a graph: `2 d / (2 d + distance(a, s) + distance(b, s))`. Here s is the common
  ancestor with the greatest *shortest* path from the root (a itself if it is one of those, else the first by NLTK
  name), and d is the number of synsets on the *longest* path of s. So the value may differ slightly between (a, b) and
  (b, a). For one noun in 45 the value of (a, a) is less than 1: these have both a short and a longer path from the
  root, so that an ancestor may have a longer shortest path than the noun itself.
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

PAIRS_AT_ONCE = 1 << 16  # bounds the memory that relations of many pairs take
COLUMNS_AT_ONCE = 1 << 11  # bounds the memory that computing a matrix takes, besides the matrix itself


def lowest_first(h: SynsetGraph, by: By) -> IntArray:
    """Returns int64 [2, nodes]: the nodes in the order of preference as lowest common ancestor, and each node's rank.

    Raises:
        InputError: `by` is neither "depth" nor "height".
    """
    if by not in ("depth", "height"):
        raise InputError(f"by must be 'depth' or 'height', not {by!r}")
    depth, height = -h.depths[1], h.heights
    keys = (height, depth) if by == "depth" else (depth, height)
    return h.cached(f"lowest first by {by}", lambda: _with_ranks(np.lexsort(keys)))


def is_a(h: SynsetGraph, a: IntArray, b: IntArray) -> npt.NDArray[np.bool_]:
    """Returns bool [pairs]: whether `a[i]` is at or below `b[i]`. Here and below, a and b are nodes, int64 [pairs]."""
    result = np.empty(len(a), np.bool_)
    for chunk in _chunks(len(a)):
        result[chunk] = h.dag.steps_up(a[chunk], b[chunk]) >= 0
    return result


def lca(h: SynsetGraph, a: IntArray, b: IntArray, by: By) -> IntArray:
    """Returns int64 [pairs]: the nodes of the lowest common ancestors."""
    return _first_of_pairs(h, a, b, lowest_first(h, by))


def distance(h: SynsetGraph, a: IntArray, b: IntArray) -> IntArray:
    """Returns int64 [pairs]: the number of edges on the shortest path between them."""
    return _min_of_pairs(h, a, b, lambda _, steps: steps)


def path(h: SynsetGraph, a: IntArray, b: IntArray) -> npt.NDArray[np.float64]:
    """Returns float64 [pairs]: path similarity."""
    return 1 / (1 + distance(h, a, b))


def wup(h: SynsetGraph, a: IntArray, b: IntArray) -> npt.NDArray[np.float64]:
    """Returns float64 [pairs]: Wu and Palmer's similarity."""
    s = _first_of_pairs(h, a, b, _wup_first(h))
    low, high = h.dag.depths
    s = np.where((low[a] == low[s]) & is_a(h, b, a), a, s)
    return _wup(high[s] + 1, distance(h, a, s) + distance(h, b, s))


def ancestor_matrix(h: SynsetGraph) -> npt.NDArray[np.bool_]:
    """Returns bool [classes, nodes]: whether the class is at or below the node."""
    matrix = np.zeros((h.num_classes, len(h)), np.bool_)
    class_index, above, _ = _above_classes(h)
    matrix[class_index, above] = True
    return matrix


def lca_matrix(h: SynsetGraph, by: By) -> npt.NDArray[np.int32]:
    """Returns int32 [classes, classes]: the node of the lowest common ancestor of each pair of classes."""
    return _first_of_classes(h, lowest_first(h, by))


def _lca_height(h: SynsetGraph) -> npt.NDArray[np.int16]:
    return _min_of_classes(h, lambda above, _: h.dag.heights[above], 0)


def _lca_depth(h: SynsetGraph) -> npt.NDArray[np.int16]:
    return -_min_of_classes(h, lambda above, _: -h.dag.depths[1][above], 0)


def _distance(h: SynsetGraph) -> npt.NDArray[np.int16]:
    return _min_of_classes(h, lambda _, steps: steps, 1)


def _path(h: SynsetGraph) -> npt.NDArray[np.float32]:
    similarity: npt.NDArray[np.float32] = np.float32(1) / (h.class_matrix("distance") + np.float32(1))
    return similarity


def _class_wup(h: SynsetGraph) -> npt.NDArray[np.float32]:
    low, high = h.depths
    s = _first_of_classes(h, _wup_first(h))
    a = np.broadcast_to(h.class_nodes[:, None], s.shape)
    a_is_above = h.ancestor_matrix()[:, h.class_nodes].T
    s = np.where((low[a] == low[s]) & a_is_above, a, s)
    edges = np.zeros(s.shape, np.int16)
    for chunk, table in _min_tables(h, lambda _, steps: steps, 1):
        columns = np.arange(table.shape[1])
        edges[:, chunk] += table[s[:, chunk], columns]
        edges[chunk] += table[s[chunk], columns[:, None]]
    return _wup(high[s] + 1, edges).astype(np.float32)


MATRICES: dict[str, Callable[[SynsetGraph], npt.NDArray[np.generic]]] = {
    "lca_height": _lca_height,
    "lca_depth": _lca_depth,
    "distance": _distance,
    "path": _path,
    "wup": _class_wup,
}


def class_matrix(h: SynsetGraph, kind: str) -> npt.NDArray[np.generic]:
    """Computes the matrix over all pairs of classes: see `Hierarchy.class_matrix`, which caches it."""
    if kind not in MATRICES:
        raise InputError(f"no class matrix {kind!r}: use one of {', '.join(map(repr, MATRICES))}")
    return MATRICES[kind](h)


def _wup(depth: npt.NDArray[np.integer], distance: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    return 2 * depth / (distance + 2 * depth)


def _wup_first(h: SynsetGraph) -> IntArray:
    """Returns int64 [2, nodes]: the nodes in the order of preference as the ancestor of wup, and each node's rank."""

    def order() -> IntArray:
        inner = np.flatnonzero(h.heights)  # a leaf is an ancestor of itself only, so its name does not matter
        names = [h.tables.name(row) for row in h.rows[inner].tolist()]
        by_name = np.zeros(len(h), np.int64)
        by_name[inner[sorted(range(inner.size), key=names.__getitem__)]] = np.arange(inner.size)
        return _with_ranks(np.lexsort((by_name, -h.depths[0])))

    return h.cached("wup first", order)


def _with_ranks(order: IntArray) -> IntArray:
    """Returns int64 [2, nodes]: an order of all nodes, and the rank of each node in it."""
    ranks = np.empty_like(order)
    ranks[order] = np.arange(order.size)
    return np.stack([order, ranks])


def _first_of_pairs(h: SynsetGraph, a: IntArray, b: IntArray, order: IntArray) -> IntArray:
    """Returns int64 [pairs]: the common ancestor that comes first in `order`, [2, nodes]."""
    nodes, rank = order
    return nodes[_min_of_pairs(h, a, b, lambda above, _: rank[above])]


def _first_of_classes(h: SynsetGraph, order: IntArray) -> npt.NDArray[np.int32]:
    """Returns int32 [classes, classes]: the common ancestor that comes first in `order`, [2, nodes]."""
    nodes, rank = order
    return nodes.astype(np.int32)[_min_of_classes(h, lambda above, _: rank[above], 0)]


def _chunks(pairs: int) -> Iterator[slice]:
    return (slice(start, start + PAIRS_AT_ONCE) for start in range(0, pairs, PAIRS_AT_ONCE))


def _min_of_pairs(h: SynsetGraph, a: IntArray, b: IntArray, value: Value) -> IntArray:
    """Returns int64 [pairs]: the minimum of `value(common ancestor, steps)`. Every pair has the root in common."""
    minimum = np.empty(len(a), np.int64)
    for chunk in _chunks(len(a)):
        pair, above, steps = h.dag.common(a[chunk], b[chunk])
        minimum[chunk] = np.minimum.reduceat(value(above, steps), np.flatnonzero(np.append(True, np.diff(pair))))
    return minimum


def _above_classes(h: SynsetGraph) -> tuple[IntArray, IntArray, IntArray]:
    """Returns every (class index, node at or above it, edges on the shortest path up) as three parallel arrays."""
    if not h.num_classes:
        raise InputError(
            "this hierarchy has no classes, so it has no class matrix; use another class set, such as 'in1k'"
        )
    indptr, ancestors, steps = h.dag.closure
    counts = np.diff(indptr)
    class_index = np.repeat(h.class_of_node, counts)
    chosen = class_index >= 0
    return class_index[chosen], ancestors[chosen], steps[chosen]


def _min_tables(h: SynsetGraph, value: Value, step: int) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """Yields slices of the classes with a table, int [nodes, classes in the slice].

    An entry is the minimum, over the common ancestors s of the node and the class, of `value(s, edges from the class up
    to s)` plus `step` times the edges from the node up to s.
    """
    class_index, above, steps = _above_classes(h)
    values = value(above, steps)
    dtype = np.int16 if max(values.max(), -values.min()) < 1 << 14 else np.int32
    for start in range(0, h.num_classes, COLUMNS_AT_ONCE):
        chunk = slice(start, min(start + COLUMNS_AT_ONCE, h.num_classes))
        here = (chunk.start <= class_index) & (class_index < chunk.stop)
        table = np.full((len(h), chunk.stop - chunk.start), np.iinfo(dtype).max // 2, dtype)
        table[above[here], class_index[here] - start] = values[here]
        h.dag.pass_down(table, step)
        yield chunk, table


def _min_of_classes(h: SynsetGraph, value: Value, step: int) -> npt.NDArray[Any]:
    """Returns [classes, classes], int16, or int32 for large values: the classes' rows of the tables."""
    blocks = (table[h.class_nodes] for _, table in _min_tables(h, value, step))
    return np.concatenate(list(blocks), axis=1)
