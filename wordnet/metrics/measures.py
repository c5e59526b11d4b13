"""Hierarchical metrics of classifiers: how severe the mistakes are, and how much of a prediction is right.

Every function takes `scores` and `labels` as numpy arrays, as anything that numpy converts to an array, or as torch
tensors, which stay on their device (only results are copied from it).

- `scores` are floats [N, classes], one score per class, such as logits: the k highest are the predictions. Or they are
  integers [N] or [N, K]: the predicted class indices, best first.
- `labels` are integers [N]: class indices.

All sums are sums of integers and hence exact, independent of batches and order. All functions raise `InputError` for
shapes that do not match, for numbers that are not class indices, and if there are no images.
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
    """The value of a metric.

    Attributes:
        value: a float, NaN if there are no images to average over; or a tuple of floats.
        count: the number of images averaged over.
        convention: how the metric is defined, in a phrase.
    """

    value: float | tuple[float, ...]
    count: int
    convention: str

    def __float__(self) -> float:
        if isinstance(self.value, tuple):
            raise TypeError(f"this metric has {len(self.value)} values")
        return self.value

    def to_dict(self) -> dict[str, Any]:
        """Converts the metric to a dictionary for JSON, with None for NaN."""
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        shown = [None if isnan(value) else value for value in values]
        value = shown if isinstance(self.value, tuple) else shown[0]
        return {"value": value, "count": self.count, "convention": self.convention}


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix of S superclasses.

    Attributes:
        names: the names of the superclasses.
        counts: int64 [S, S]: the number of images by superclass of the label (row) and of the prediction (column).
        outside: int64 [S]: the number of images by superclass of the label whose prediction is in no superclass.
        count: the number of images whose label is in a superclass, `counts.sum() + outside.sum()`.
        convention: how the images are counted, in a phrase.
    """

    names: list[str]
    counts: npt.NDArray[np.int64]
    outside: npt.NDArray[np.int64]
    count: int
    convention: str


def top_k(scores: Array, k: int) -> Array:
    """Returns the k best classes of each image, best first.

    Among equal scores the lower class index comes first. NaN counts as the highest score, as in argmax.

    Returns:
        int64 [N, k], an array or tensor like `scores`, on the same device.
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
            f"scores must be floats [N, C], or class indices, integers [N] or [N, K], not {scores.dtype} "
            f"{list(scores.shape)}"
        )
    _check_k(k, ranked.shape[1], "predictions")
    return ranked[:, :k]


def _best_of_numpy(scores: npt.NDArray[np.floating], k: int) -> npt.NDArray[np.int64]:
    """`top_k` for an array, by a partial sort.

    Which of several equal scores a partial sort takes depends on the processor. Rows that have more scores equal to the
    k-th than were taken are therefore sorted completely.
    """
    best = np.argpartition(scores, -k, axis=1)[:, -k:]
    last = np.take_along_axis(scores, best, axis=1).min(axis=1, keepdims=True)
    tied = np.flatnonzero((~(scores < last)).sum(axis=1) != k)  # NaN is not less
    best[tied] = _descending(scores[tied])[:, :k]
    best.sort(axis=1)
    return np.take_along_axis(best, _descending(np.take_along_axis(scores, best, axis=1)), axis=1)


def _descending(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    return np.lexsort((-scores, ~np.isnan(scores)), axis=1)


def _best_of_torch(scores: Any, k: int) -> Any:
    """`top_k` for a tensor, in the same way."""
    values, best = scores.topk(k, dim=1)
    tied = ((~(scores < values[:, -1:])).sum(1) != k).nonzero()[:, 0]
    best[tied] = scores[tied].argsort(dim=1, descending=True, stable=True)[:, :k]
    best = best.sort(dim=1).values
    return best.gather(1, scores.gather(1, best).argsort(dim=1, descending=True, stable=True))


def top_k_accuracy(scores: Array, labels: Array, k: int = 1) -> Metric:
    """Computes the fraction of images whose label is among the first k predictions."""
    best, y = _pairs(scores, labels, k)
    hits = int((best == y[:, None]).sum())  # a class occurs at most once per image
    return Metric(hits / len(y), len(y), f"the label is among {_first(k)}" if k > 1 else "exact match")


def hierarchical_distance(h: Hierarchy, scores: Array, labels: Array, k: int = 1) -> Metric:
    """Computes the mean height of the lowest common ancestor of label and prediction.

    The mean is over all images and their first k predictions. The height counts as 0 where label and prediction are the
    same. Source: Bertinetto et al., "Making Better Mistakes" (2020).
    """
    best, y = _pairs(scores, labels, k, h)
    height_sum = total(lookup(h, "lca_height", y, best))
    return Metric(height_sum / (len(y) * k), len(y), f"mean LCA height over {_first(k)}, {_BY_HEIGHT}")


def mistake_severity(h: Hierarchy, scores: Array, labels: Array) -> Metric:
    """Computes the mean height of the lowest common ancestor of label and prediction over the misclassified images.

    `count` is the number of mistakes. Source: Bertinetto et al., "Making Better Mistakes" (2020).
    """
    best, y = _pairs(scores, labels, 1, h)
    mistakes = int((best[:, 0] != y).sum())
    height_sum = total(lookup(h, "lca_height", y, best))  # correct predictions add 0
    return Metric(height_sum / mistakes if mistakes else nan, mistakes, f"mean LCA height over mistakes, {_BY_HEIGHT}")


def hierarchical_precision_recall(h: Hierarchy, scores: Array, labels: Array) -> dict[str, Metric]:
    """Computes hierarchical precision, recall and F1 of the first predictions.

    Each class stands for the set of itself and all its ancestors in the graph, without the root. The synsets that the
    sets of prediction and label share are counted and summed over all images. Precision divides this sum by the summed
    sizes of the predictions' sets, recall by those of the labels' sets (micro-averaging). F1 is the harmonic mean.
    Source: Kiritchenko, Matwin, Famili, "Functional annotation of genes using hierarchical text categorization" (2005).

    Returns:
        The metrics `hierarchical_precision`, `hierarchical_recall` and `hierarchical_f1`, by name.
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
    """Computes the accuracy at each depth of the hierarchy: labels and predictions replaced by ancestors at that depth.

    The depth of a synset is the length of the longest path from the root to it, as in `Synset.path`. A class may have
    several ancestors at one depth. A prediction is correct at a depth if it shares one of them with the label, that is,
    if their deepest common ancestor is at least that deep. A class that is less deep stands for itself, and only the
    same class is correct. So the values never increase with depth, and the last one is the top-1 accuracy.

    Returns:
        A metric with a tuple of values, for depth 0, 1, … up to the depth of the deepest class.
    """
    best, y = _pairs(scores, labels, 1, h)
    depth = lookup(h, "lca_depth", y, best)[:, 0]
    deepest = int(h.depths[1][h.class_nodes].max())
    counts = bincount(depth[best[:, 0] != y], deepest + 1)
    counts[deepest] += len(y) - counts.sum()  # correct at every depth
    right = np.cumsum(counts[::-1])[::-1]
    return Metric(
        tuple((right / len(y)).tolist()),
        len(y),
        "by depth (longest path from the root): shares an ancestor at that depth; a less deep class stands for itself",
    )


def superclass_accuracy(h: Hierarchy, scores: Array, labels: Array, superclasses: Superclasses) -> Metric:
    """Computes the fraction of images whose prediction is in the superclass of their label.

    Images whose label is in no superclass are ignored.

    Args:
        h: the hierarchy of the class indices.
        scores: see the module.
        labels: see the module.
        superclasses: a label map, targets for `Hierarchy.labelmap`, or a list of keys.
    """
    c = confusion(h, scores, labels, superclasses)
    return Metric(int(c.counts.trace()) / c.count if c.count else nan, c.count, c.convention)


def confusion(h: Hierarchy, scores: Array, labels: Array, superclasses: Superclasses) -> Confusion:
    """Counts images by the superclass of their label and of their first prediction.

    Images whose label is in no superclass are ignored.

    Args:
        h: the hierarchy of the class indices.
        scores: see the module.
        labels: see the module.
        superclasses: a label map, targets for `Hierarchy.labelmap`, or a list of keys.
    """
    best, y = _pairs(scores, labels, 1, h)
    lm = as_labelmap(h, superclasses)
    size = len(lm.names)
    of_class = like(np.where(lm.of_class < 0, size, lm.of_class), y)  # size: in none of them
    counts = bincount(of_class[y] * (size + 1) + of_class[best[:, 0]], (size + 1) ** 2).reshape(size + 1, size + 1)
    return Confusion(
        list(lm.names),
        counts[:size, :size],
        counts[:size, size],
        int(counts[:size].sum()),
        f"superclass of the prediction against that of the label, over the labels in one of {size}",
    )


def real_accuracy(scores: Array, real: Sequence[Iterable[int]]) -> Metric:
    """Computes the accuracy on reassessed labels: the first prediction must be one of the image's labels.

    Images without labels are ignored. Source: Beyer et al., "Are we done with ImageNet?" (2020).

    Args:
        scores: see the module.
        real: the class indices of each image: real.json, which is in the order of the validation images.
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
    return Metric(
        hits / count if count else nan, count, "one of the ReaL labels; images without ReaL labels are ignored"
    )


def as_labelmap(h: Hierarchy, superclasses: Superclasses) -> LabelMap:
    """Returns a label map unchanged; converts a mapping of names to keys, or a list of keys, dropping other classes."""
    if isinstance(superclasses, LabelMap):
        if list(superclasses.wnids) != h.wnids:
            raise InputError(f"{superclasses!r} does not have the classes of {h!r}")
        return superclasses
    if not isinstance(superclasses, Mapping):
        superclasses = {h[key].name: h[key] for key in superclasses}
    return h.labelmap(superclasses, other="drop")


_BY_HEIGHT = "LCA by height on the graph (several parents), in edges down to the farthest class"


def _pairs(scores: Array, labels: Array, k: int, h: Hierarchy | None = None) -> tuple[Array, Array]:
    """Checks and returns the predictions [N, k] and the labels [N], both arrays or both tensors on one device."""
    scores = as_array(scores)
    best = as_int64(top_k(scores, k))
    y = like(labels, best)
    if y.ndim != 1 or is_float(y):
        raise InputError(f"labels must be class indices, integers [N], not {y.dtype} {list(y.shape)}")
    if len(y) != len(best):
        raise InputError(f"{len(best):,} images have predictions but {len(y):,} have labels")
    if not len(y):
        raise InputError("no images to evaluate")
    if h is not None:
        if is_float(scores) and scores.shape[1] != h.num_classes:
            raise InputError(f"scores of {scores.shape[1]:,} classes for a hierarchy of {h.num_classes:,}")
        for name, indices in (("label", y), ("prediction", best)):
            low, high = int(indices.min()), int(indices.max())
            if low < 0 or high >= h.num_classes:
                bad = low if low < 0 else high
                raise InputError(f"{name} {bad} is not a class index: they go from 0 to {h.num_classes - 1}")
    return best, as_int64(y)


def _first(k: int) -> str:
    return f"the first {k} predictions" if k > 1 else "the first prediction"


def _check_k(k: int, most: int, what: str) -> None:
    if not 1 <= k <= most:
        raise InputError(f"k must be from 1 to {most}, the number of {what}, not {k}")
