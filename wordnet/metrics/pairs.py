"""Facts of pairs of classes, looked up for whole arrays of class indices: numpy's, or torch's on their device."""

from __future__ import annotations

import sys
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import InputError
from imgtool.wordnet.graph.similarity import PAIRS_AT_ONCE
from imgtool.wordnet.hierarchy import Hierarchy

Array: TypeAlias = Any  # a numpy array or a torch tensor

MATRIX_CLASSES = 4096  # to so many classes all pairs are kept in a table; beyond, those asked for are worked out

_tables: WeakKeyDictionary[Hierarchy, dict[tuple[str, str], Array]] = WeakKeyDictionary()


def is_torch(x: object) -> bool:
    """Whether this is a tensor; torch is not imported for the question."""
    return "torch" in sys.modules and isinstance(x, sys.modules["torch"].Tensor)


def as_array(x: Any) -> Array:
    return x if is_torch(x) else np.asarray(x)


def like(x: Any, other: Array) -> Array:
    """``x`` of the kind of ``other`` and on its device."""
    if is_torch(other):
        return sys.modules["torch"].as_tensor(x, device=other.device)
    return x.detach().cpu().numpy() if is_torch(x) else np.asarray(x)


def is_float(x: Array) -> bool:
    """Whether these are floats; raises InputError for what is neither float nor integer."""
    if is_torch(x):
        if x.dtype.is_complex or x.dtype == sys.modules["torch"].bool:
            raise InputError(f"neither scores nor class indices: {x.dtype}")
        return bool(x.dtype.is_floating_point)
    if x.size and x.dtype.kind not in "iuf":
        raise InputError(f"neither scores nor class indices: {x.dtype}")
    return x.dtype.kind == "f" and (x.size > 0 or x.ndim == 2)  # np.asarray([]) has floats too


def as_int64(x: Array) -> Array:
    return x.long() if is_torch(x) else x.astype(np.int64, copy=False)


def total(x: Array) -> int:
    """The sum of integers of any width."""
    return int(x.sum() if is_torch(x) else x.sum(dtype=np.int64))


def bincount(x: Array, size: int) -> npt.NDArray[np.int64]:
    """int64 [size]: how often each of 0 … size - 1 is in ``x``."""
    if is_torch(x):
        counts: npt.NDArray[np.int64] = x.long().bincount(minlength=size).cpu().numpy()
        return counts
    return np.bincount(x, minlength=size)


def lookup(h: Hierarchy, kind: str, labels: Array, predictions: Array) -> Array:
    """A fact of each pair of a label and a prediction.

    Args:
        kind: ``"lca_height"``, the height of the lowest common ancestor by height, 0 for a class and itself;
            ``"lca_depth"``, the depth, by the longest path, of the deepest common ancestor;
            ``"shared"``, how many ancestors they share, counting the classes themselves and not the root.
        labels: integers [N].
        predictions: integers [N, k].

    Returns:
        integers [N, k], of the kind and on the device of ``predictions``.
    """
    classes = h.num_classes
    code = labels[:, None] * classes + predictions
    if classes <= MATRIX_CLASSES:
        table = _table(h, kind, code)
        return table[code] if is_torch(code) else table.take(code)
    codes, inverse = code.unique(return_inverse=True) if is_torch(code) else np.unique(code, return_inverse=True)
    values = _of_pairs(h, kind, *np.divmod(like(codes, np.empty(0)), classes))
    return like(values, code)[inverse].reshape(code.shape)


def _table(h: Hierarchy, kind: str, code: Array) -> Array:
    """[classes * classes] of the kind and on the device of ``code``; kept as long as the hierarchy is."""
    kept = _tables.setdefault(h, {})
    where = str(code.device) if is_torch(code) else "numpy"
    if (kind, where) not in kept:
        kept[kind, where] = like(_table(h, kind, np.empty(0)), code) if is_torch(code) else _matrix(h, kind).ravel()
    return kept[kind, where]


def _matrix(h: Hierarchy, kind: str) -> npt.NDArray[np.integer]:
    """[classes, classes], in as few bytes as will do: a small table stays in the processor's cache."""
    if kind == "shared":
        above = h.ancestor_matrix()[:, np.diff(h.dag.indptr) > 0].astype(np.float32)
        matrix: npt.NDArray[Any] = above @ above.T
    else:
        matrix = h.class_matrix(kind).copy()
        if kind == "lca_height":
            np.fill_diagonal(matrix, 0)
    return matrix.astype(np.uint8 if matrix.max() < 256 else np.int32)


def _of_pairs(
    h: Hierarchy, kind: str, labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """int64 [pairs]: what the tables have, for these pairs only."""
    a, b = h.class_nodes[labels], h.class_nodes[predictions]
    if kind == "lca_height":
        return np.where(a == b, 0, h.heights[h.lca(labels, predictions, "height")])
    if kind == "lca_depth":
        return h.depths[1][h.lca(labels, predictions, "depth")].astype(np.int64)
    counts = np.zeros(len(a), np.int64)
    for start in range(0, len(a), PAIRS_AT_ONCE):
        some = slice(start, start + PAIRS_AT_ONCE)
        pair, above, _ = h.dag.common(a[some], b[some])
        counts[some] = np.bincount(pair[np.diff(h.dag.indptr)[above] > 0], minlength=len(counts[some]))
    return counts
