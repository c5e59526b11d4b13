"""All metrics at once, for a whole validation split: at one go or batch by batch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import numpy as np

from imgtool.wordnet.errors import InputError
from imgtool.wordnet.hierarchy import Hierarchy
from imgtool.wordnet.metrics import measures as metrics
from imgtool.wordnet.metrics.measures import Array, Metric, Superclasses, top_k
from imgtool.wordnet.metrics.pairs import as_array, is_float, is_torch, like


class Evaluation:
    """Collects predictions and labels batch by batch; :meth:`result` measures all of them.

    What is kept is the first predictions of each image, on their device, 8 bytes each: :meth:`update` waits for
    nothing there. The result is that of :func:`evaluate` on all batches together, to the last digit.

    Args:
        h: the hierarchy that the class indices are of.
        k: for ``top1``, ``top5`` and the like. With fewer classes top-5 is top-(number of classes); where fewer
            predictions are given than some k, there is no result for it.
        superclasses: a label map, what :meth:`Hierarchy.labelmap` makes one of, or a list of keys; adds
            ``superclass_accuracy``.
        real: a list of class indices for every image, in the order of the updates; adds ``real_accuracy``.
    """

    def __init__(
        self,
        h: Hierarchy,
        k: Sequence[int] = (1, 5),
        superclasses: Superclasses | None = None,
        real: Sequence[Iterable[int]] | None = None,
    ) -> None:
        if not k or min(k) < 1:
            raise InputError(f"k must be one or more numbers from 1 on, not {tuple(k)}")
        self.hierarchy, self.k, self.real = h, tuple(k), real
        self.labelmap = None if superclasses is None else metrics.as_labelmap(h, superclasses)
        self._predictions: list[Array] = []
        self._labels: list[Array] = []

    def update(self, scores: Array, labels: Array) -> None:
        """Add a batch: see :mod:`imgtool.wordnet.metrics.measures` for what scores and labels may be.

        Raises:
            InputError: shapes that do not fit. What is no class index is noticed by :meth:`result`.
        """
        scores = as_array(scores)
        if scores.ndim == 2 and is_float(scores) and scores.shape[1] != self.hierarchy.num_classes:
            raise InputError(f"scores of {scores.shape[1]:,} classes for a hierarchy of {self.hierarchy.num_classes:,}")
        most = scores.shape[1] if scores.ndim == 2 else 1
        best = top_k(scores, min(max(self.k), most))
        y = like(labels, best)
        if y.ndim != 1 or len(y) != len(best):
            raise InputError(f"{len(best):,} images have predictions but the labels are {list(y.shape)}")
        if len(best):  # copies: a loader may use its memory again
            self._predictions.append(best.clone() if is_torch(best) else best.copy())
            self._labels.append(y.clone() if is_torch(y) else y.copy())

    def result(self) -> dict[str, Metric]:
        """The metrics by name, in the order to print them:

        ``top1``, ``top5`` (one a k), ``hierarchical_distance@1``, ``hierarchical_distance@5``, ``mistake_severity``,
        ``hierarchical_precision``, ``hierarchical_recall``, ``hierarchical_f1``, ``depth_accuracy``, and where
        asked for ``superclass_accuracy`` and ``real_accuracy``.

        Raises:
            InputError: no images, something that is no class index, or ``real`` of another length.
        """
        if not self._labels:
            raise InputError("no images to measure on")
        widest = min(best.shape[1] for best in self._predictions)
        predictions = _concatenate([best[:, :widest] for best in self._predictions])
        labels = _concatenate(self._labels)
        h, first = self.hierarchy, predictions[:, :1]
        ks = [(k, min(k, widest)) for k in self.k if k <= widest or widest == h.num_classes]
        if not ks:
            raise InputError(f"k is {min(self.k)} but an image has only {widest} predictions")
        results = {f"top{k}": metrics.top_k_accuracy(predictions, labels, most) for k, most in ks}
        for k, most in ks:
            results[f"hierarchical_distance@{k}"] = metrics.hierarchical_distance(h, predictions, labels, most)
        results["mistake_severity"] = metrics.mistake_severity(h, first, labels)
        results |= metrics.hierarchical_precision_recall(h, first, labels)
        results["depth_accuracy"] = metrics.depth_accuracy(h, first, labels)
        if self.labelmap is not None:
            results["superclass_accuracy"] = metrics.superclass_accuracy(h, first, labels, self.labelmap)
        if self.real is not None:
            results["real_accuracy"] = metrics.real_accuracy(first, self.real)
        return results


def evaluate(
    h: Hierarchy,
    scores: Array,
    labels: Array,
    k: Sequence[int] = (1, 5),
    superclasses: Superclasses | None = None,
    real: Sequence[Iterable[int]] | None = None,
) -> dict[str, Metric]:
    """All metrics of these scores: the result of an :class:`Evaluation` with one update.

    Raises:
        InputError: shapes that do not fit, no images, or what is no class index.
    """
    evaluation = Evaluation(h, k, superclasses, real)
    evaluation.update(scores, labels)
    return evaluation.result()


def _concatenate(parts: list[Array]) -> Array:
    if is_torch(parts[0]):
        return sys.modules["torch"].cat(parts)
    return np.concatenate(parts)
