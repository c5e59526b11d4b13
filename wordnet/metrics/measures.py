"""Metrics of classifiers that know the hierarchy: how bad the mistakes are, how much of an answer is right.

Every function takes ``scores`` as numpy arrays, anything numpy makes one of, or torch tensors, which stay on their
device (only results are read from it):

- floats [N, C] are scores a class, higher is better (logits do): the k highest are the predictions;
- integers [N] or [N, K] are class indices, best first: the predictions themselves;

and ``labels``, integers [N]: class indices. All sums are of integers, hence exact: batches and order do not matter.
All raise InputError for shapes that do not fit, for what is no class index, and where there is no image at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import InputError
from imgtool.wordnet.graph.label_map import LabelMap
from imgtool.wordnet.graph.types import Key, Keys
from imgtool.wordnet.hierarchy import Hierarchy
from imgtool.wordnet.metrics.pairs import Array, as_array, as_int64, bincount, is_float, is_torch, like, lookup, total

Superclasses: TypeAlias = "LabelMap | Mapping[str, Keys] | Sequence[Key]"


@dataclass(frozen=True)
class Metric:
    """A result, how many images it is the mean over, and by which convention.

    ``value`` is a float, nan where there is nothing to take the mean of; or a tuple of them.
    """

    value: float | tuple[float, ...]
    count: int
    convention: str

    def __float__(self) -> float:
        if isinstance(self.value, tuple):
            raise TypeError(f"this metric has {len(self.value)} values")
        return self.value

    def to_dict(self) -> dict[str, Any]:
        """For JSON: nan as None."""
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        shown = [None if isnan(value) else value for value in values]
        value = shown if isinstance(self.value, tuple) else shown[0]
        return {"value": value, "count": self.count, "convention": self.convention}


@dataclass(frozen=True)
class Confusion:
    """Images by superclass of their label (rows) and of their prediction (columns).

    Attributes:
        names: of the S superclasses.
        counts: int64 [S, S].
        outside: int64 [S]: of each superclass, the images predicted to be in none of them.
        count: the images with a label in one of them, ``counts.sum() + outside.sum()``.
    """

    names: list[str]
    counts: npt.NDArray[np.int64]
    outside: npt.NDArray[np.int64]
    count: int
    convention: str


def top_k(scores: Array, k: int) -> Array:
    """The k best classes of each image, best first: int64 [N, k], of the kind and on the device of ``scores``.

    Among equal scores the lower class index comes first; nan counts as the highest, as argmax has it.
    """
    scores = as_array(scores)
    if scores.ndim == 2 and is_float(scores):
        _check_k(k, scores.shape[1], "classes")
        if k == 1:
            return scores.argmax(1)[:, None]
        return _best_of_torch(scores, k) if is_torch(scores) else _best_of_numpy(scores, k)
    ranked = scores[:, None] if scores.ndim == 1 else scores
    if ranked.ndim != 2 or is_float(scores):
        raise InputError(
            f"scores are floats [N, C], or class indices, integers [N] or [N, K]; these are {scores.dtype} "
            f"{list(scores.shape)}"
        )
    _check_k(k, ranked.shape[1], "predictions")
    return ranked[:, :k]


def _best_of_numpy(scores: npt.NDArray[np.floating], k: int) -> npt.NDArray[np.int64]:
    """As `top_k`. A partial sort, whose choice among equal scores depends on the processor; rows with scores equal to
    the k-th that it left out are sorted whole."""
    best = np.argpartition(scores, -k, axis=1)[:, -k:]
    last = np.take_along_axis(scores, best, axis=1).min(axis=1, keepdims=True)
    tied = np.flatnonzero((~(scores < last)).sum(axis=1) != k)  # nan is not below
    best[tied] = _descending(scores[tied])[:, :k]
    best.sort(axis=1)
    return np.take_along_axis(best, _descending(np.take_along_axis(scores, best, axis=1)), axis=1)


def _descending(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    return np.lexsort((-scores, ~np.isnan(scores)), axis=1)


def _best_of_torch(scores: Any, k: int) -> Any:
    """The same for a tensor."""
    values, best = scores.topk(k, dim=1)
    tied = ((~(scores < values[:, -1:])).sum(1) != k).nonzero()[:, 0]
    best[tied] = scores[tied].argsort(dim=1, descending=True, stable=True)[:, :k]
    best = best.sort(dim=1).values
    return best.gather(1, scores.gather(1, best).argsort(dim=1, descending=True, stable=True))


def top_k_accuracy(scores: Array, labels: Array, k: int = 1) -> Metric:
    """The fraction of images whose label is among the first k predictions."""
    best, y = _pairs(scores, labels, k)
    hits = int((best == y[:, None]).sum())  # a class is predicted once
    return Metric(hits / len(y), len(y), f"the label is among {_first(k)}" if k > 1 else "exact match")


def hierarchical_distance(h: Hierarchy, scores: Array, labels: Array, k: int = 1) -> Metric:
    """The mean, over images and their first k predictions, of the height of the lowest common ancestor of prediction
    and label, 0 where they are the same: Bertinetto et al., "Making Better Mistakes" (2020)."""
    best, y = _pairs(scores, labels, k, h)
    height_sum = total(lookup(h, "lca_height", y, best))
    return Metric(height_sum / (len(y) * k), len(y), f"mean LCA height over {_first(k)}, {_BY_HEIGHT}")


def mistake_severity(h: Hierarchy, scores: Array, labels: Array) -> Metric:
    """The mean height of the lowest common ancestor of prediction and label over the images where these differ:
    Bertinetto et al., "Making Better Mistakes" (2020). ``count`` is the number of mistakes."""
    best, y = _pairs(scores, labels, 1, h)
    mistakes = int((best[:, 0] != y).sum())
    height_sum = total(lookup(h, "lca_height", y, best))  # the right ones add 0
    return Metric(height_sum / mistakes if mistakes else nan, mistakes, f"mean LCA height over mistakes, {_BY_HEIGHT}")


def hierarchical_precision_recall(h: Hierarchy, scores: Array, labels: Array) -> dict[str, Metric]:
    """``hierarchical_precision``, ``_recall`` and ``_f1`` of the first predictions: Kiritchenko, Matwin, Famili,
    "Functional annotation of genes using hierarchical text categorization" (2005).

    A class stands for the set of itself and all its ancestors, on the graph, without the root. Precision is how many
    of the predictions' sets are in the labels' sets, of all in the former; recall, of all in the latter; both are
    summed over images before they are divided (micro-averaged). F1 is their harmonic mean.
    """
    best, y = _pairs(scores, labels, 1, h)
    p = best[:, 0]
    both, predicted, true = (total(lookup(h, "shared", a, b[:, None])) for a, b in ((y, p), (p, p), (y, y)))
    precision, recall = (both / n if n else nan for n in (predicted, true))
    convention = "sets of all ancestors without the root, summed over images (micro)"
    return {
        "hierarchical_precision": Metric(precision, len(y), convention),
        "hierarchical_recall": Metric(recall, len(y), convention),
        "hierarchical_f1": Metric(2 * both / (predicted + true) if predicted + true else nan, len(y), convention),
    }


def depth_accuracy(h: Hierarchy, scores: Array, labels: Array) -> Metric:
    """Accuracy with labels and predictions lifted to depth 0, 1, … to that of the deepest class: a value a depth.

    The depth of a synset is the length of the longest path down to it from the root, as in :attr:`Synset.path`. A class
    may have several ancestors at one depth; a prediction is right there if it shares one with the label, which is to
    say if their deepest common ancestor is at least that deep. A class that is not as deep stands for itself, and only
    that very class is right. So the values never rise with depth, and the last is the top-1 accuracy.
    """
    best, y = _pairs(scores, labels, 1, h)
    depth = lookup(h, "lca_depth", y, best)[:, 0]
    deepest = int(h.depths[1][h.class_nodes].max())
    counts = bincount(depth[best[:, 0] != y], deepest + 1)
    counts[deepest] += len(y) - counts.sum()  # right at every depth
    right = np.cumsum(counts[::-1])[::-1]
    return Metric(
        tuple((right / len(y)).tolist()),
        len(y),
        "by depth (longest path from the root): shares an ancestor at that depth; a class less deep stands for itself",
    )


def superclass_accuracy(h: Hierarchy, scores: Array, labels: Array, superclasses: Superclasses) -> Metric:
    """The fraction of images predicted in the superclass of their label; those whose label is in none are left out.

    Args:
        superclasses: a label map, or what :meth:`Hierarchy.labelmap` makes one of, or a list of keys.
    """
    c = confusion(h, scores, labels, superclasses)
    return Metric(int(c.counts.trace()) / c.count if c.count else nan, c.count, c.convention)


def confusion(h: Hierarchy, scores: Array, labels: Array, superclasses: Superclasses) -> Confusion:
    """First predictions and labels counted by superclass; images whose label is in none are left out.

    Args:
        superclasses: a label map, or what :meth:`Hierarchy.labelmap` makes one of, or a list of keys.
    """
    best, y = _pairs(scores, labels, 1, h)
    lm = as_labelmap(h, superclasses)
    size = len(lm.names)
    of_class = like(np.where(lm.of_class < 0, size, lm.of_class), y)  # the last is none of them
    counts = bincount(of_class[y] * (size + 1) + of_class[best[:, 0]], (size + 1) ** 2).reshape(size + 1, size + 1)
    return Confusion(
        list(lm.names),
        counts[:size, :size],
        counts[:size, size],
        int(counts[:size].sum()),
        f"superclass of the prediction against that of the label, over the labels in one of {size}",
    )


def real_accuracy(scores: Array, real: Sequence[Iterable[int]]) -> Metric:
    """Multi-label accuracy on reassessed labels: the first prediction is one of the image's labels. Images without
    any are left out. Beyer et al., "Are we done with ImageNet?" (2020).

    Args:
        real: for each image, its class indices (real.json, in the order of the validation images).
    """
    best = top_k(scores, 1)
    lists = [list(labels) for labels in real]
    if len(lists) != len(best):
        raise InputError(f"{len(best):,} predictions but {len(lists):,} lists of ReaL labels")
    padded = np.full((len(lists), max(map(len, lists), default=0)), -1, np.int64)
    lengths = np.array([len(labels) for labels in lists], np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = [label for labels in lists for label in labels]
    hits = int((like(padded, best) == best).any(1).sum())
    count = int((lengths > 0).sum())
    return Metric(hits / count if count else nan, count, "one of the ReaL labels, images without any left out")


def as_labelmap(h: Hierarchy, superclasses: Superclasses) -> LabelMap:
    """A label map as it is; a mapping of names to keys, or a list of keys, made one, the other classes dropped."""
    if isinstance(superclasses, LabelMap):
        if list(superclasses.wnids) != h.wnids:
            raise InputError(f"{superclasses!r} is not of the classes of {h!r}")
        return superclasses
    if not isinstance(superclasses, Mapping):
        superclasses = {h[key].name: h[key] for key in superclasses}
    return h.labelmap(superclasses, other="drop")


_BY_HEIGHT = "LCA by height on the graph (several parents), in edges down to the farthest class"


def _pairs(scores: Array, labels: Array, k: int, h: Hierarchy | None = None) -> tuple[Array, Array]:
    """Predictions [N, k] and labels [N], checked, of one kind and on one device."""
    scores = as_array(scores)
    best = as_int64(top_k(scores, k))
    y = like(labels, best)
    if y.ndim != 1 or is_float(y):
        raise InputError(f"labels are class indices, integers [N]: not {y.dtype} {list(y.shape)}")
    if len(y) != len(best):
        raise InputError(f"{len(best):,} images have predictions but {len(y):,} have labels")
    if not len(y):
        raise InputError("no images to measure on")
    if h is not None:
        if is_float(scores) and scores.shape[1] != h.num_classes:
            raise InputError(f"scores of {scores.shape[1]:,} classes for a hierarchy of {h.num_classes:,}")
        for name, indices in (("label", y), ("prediction", best)):
            low, high = int(indices.min()), int(indices.max())
            if low < 0 or high >= h.num_classes:
                bad = low if low < 0 else high
                raise InputError(f"{name} {bad} is no class index: they go from 0 to {h.num_classes - 1}")
    return best, as_int64(y)


def _first(k: int) -> str:
    return f"the first {k} predictions" if k > 1 else "the first prediction"


def _check_k(k: int, most: int, what: str) -> None:
    if not 1 <= k <= most:
        raise InputError(f"k must be from 1 to the number of {what}, {most}: not {k}")
