"""Looks up relations of pairs of classes for arrays of class indices: numpy arrays, or torch tensors on a device."""

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

MAX_TABLE_CLASSES = 4096  # with more classes, pairs are computed on request, not looked up in a table of all pairs

_tables: WeakKeyDictionary[Hierarchy, dict[tuple[str, str], Array]] = WeakKeyDictionary()


def is_torch(x: object) -> bool:
    """Tells whether this is a torch tensor, without importing torch."""
    return "torch" in sys.modules and isinstance(x, sys.modules["torch"].Tensor)


def as_array(x: Any) -> Array:
    return x if is_torch(x) else np.asarray(x)


def like(x: Any, other: Array) -> Array:
    """Converts `x` to an array or a tensor, whichever `other` is, on the device of `other`."""
    if is_torch(other):
        return sys.modules["torch"].as_tensor(x, device=other.device)
    return x.detach().cpu().numpy() if is_torch(x) else np.asarray(x)


def is_float(x: Array) -> bool:
    """Tells whether the dtype is floating point.

    Raises:
        InputError: the dtype is neither floating point nor integer.
    """
    if is_torch(x):
        if x.dtype.is_complex or x.dtype == sys.modules["torch"].bool:
            raise InputError(f"neither scores nor class indices: {x.dtype}")
        return bool(x.dtype.is_floating_point)
    if x.size and x.dtype.kind not in "iuf":
        raise InputError(f"neither scores nor class indices: {x.dtype}")
    return x.dtype.kind == "f" and (x.size > 0 or x.ndim == 2)  # np.asarray([]) has a float dtype, too


def as_int64(x: Array) -> Array:
    return x.long() if is_torch(x) else x.astype(np.int64, copy=False)


def total(x: Array) -> int:
    """Sums integers of any width."""
    return int(x.sum() if is_torch(x) else x.sum(dtype=np.int64))


def bincount(x: Array, size: int) -> npt.NDArray[np.int64]:
    """Returns int64 [size]: how often each of 0 … size - 1 occurs in `x`."""
    if is_torch(x):
        counts: npt.NDArray[np.int64] = x.long().bincount(minlength=size).cpu().numpy()
        return counts
    return np.bincount(x, minlength=size)


def lookup(h: Hierarchy, kind: str, labels: Array, predictions: Array) -> Array:
    """Looks up a relation for each pair of label and prediction.

    Args:
        h: the hierarchy of the class indices.
        kind: `"lca_height"`: the height of the lowest common ancestor by height, 0 for a class and itself;
            `"lca_depth"`: the depth, by the longest path, of the deepest common ancestor;
            `"shared"`: the number of ancestors that they share, the classes themselves included, without the root.
        labels: integers [N].
        predictions: integers [N, k].

    Returns:
        Integers [N, k], an array or a tensor like `predictions`, on the same device.
    """
    classes = h.num_classes
    code = labels[:, None] * classes + predictions
    if classes <= MAX_TABLE_CLASSES:
        table = _table(h, kind, code)
        return table[code] if is_torch(code) else table.take(code)
    codes, inverse = code.unique(return_inverse=True) if is_torch(code) else np.unique(code, return_inverse=True)
    values = _of_pairs(h, kind, *np.divmod(like(codes, np.empty(0)), classes))
    return like(values, code)[inverse].reshape(code.shape)


def _table(h: Hierarchy, kind: str, code: Array) -> Array:
    """Returns the table [classes * classes], an array or tensor like `code`; it is cached as long as `h` exists."""
    cached = _tables.setdefault(h, {})
    device = str(code.device) if is_torch(code) else "numpy"
    if (kind, device) not in cached:
        cached[kind, device] = like(_table(h, kind, np.empty(0)), code) if is_torch(code) else _matrix(h, kind).ravel()
    return cached[kind, device]


def _matrix(h: Hierarchy, kind: str) -> npt.NDArray[np.integer]:
    """Computes [classes, classes] in the smallest dtype, so that the table fits into the processor's cache."""
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
    """Computes int64 [pairs]: the entries of the table for some pairs only."""
    a, b = h.class_nodes[labels], h.class_nodes[predictions]
    if kind == "lca_height":
        return np.where(a == b, 0, h.heights[h.lca(labels, predictions, "height")])
    if kind == "lca_depth":
        return h.depths[1][h.lca(labels, predictions, "depth")].astype(np.int64)
    counts = np.zeros(len(a), np.int64)
    for start in range(0, len(a), PAIRS_AT_ONCE):
        chunk = slice(start, start + PAIRS_AT_ONCE)
        pair, above, _ = h.dag.common(a[chunk], b[chunk])
        counts[chunk] = np.bincount(pair[np.diff(h.dag.indptr)[above] > 0], minlength=len(counts[chunk]))
    return counts
