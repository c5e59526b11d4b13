"""Computes all metrics of a validation split, from one array of scores or batch by batch."""

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
    """Collects predictions and labels batch by batch; `result` computes the metrics of all of them.

    Stores the top predictions of each image on their device, with 8 bytes each. `update` does not synchronise with the
    device. The result is exactly that of `evaluate` on all batches together.

    Args:
        h: the hierarchy of the class indices.
        k: the values of k for `top1`, `top5` and so on. With fewer than k classes, top-k counts all classes. If only
            predictions are given, and fewer than k, there is no result for this k.
        superclasses: a label map, targets for `Hierarchy.labelmap`, or a list of keys; adds `superclass_accuracy`.
        real: a list of class indices for each image, in the order of the updates; adds `real_accuracy`.

    Raises:
        InputError: a k below 1 or none, or `superclasses` that do not fit the hierarchy.
        UnknownSynsetError: a key of `superclasses` matches no synset, or several.
    """

    def __init__(
        self,
        h: Hierarchy,
        k: Sequence[int] = (1, 5),
        superclasses: Superclasses | None = None,
        real: Sequence[Iterable[int]] | None = None,
    ) -> None:
        if not k or min(k) < 1:
            raise InputError(f"k must be one or more numbers of at least 1, not {tuple(k)}")
        self.hierarchy, self.k, self.real = h, tuple(k), real
        self.labelmap = None if superclasses is None else metrics.as_labelmap(h, superclasses)
        self._predictions: list[Array] = []
        self._labels: list[Array] = []

    def update(self, scores: Array, labels: Array) -> None:
        """Adds a batch.

        Args:
            scores: scores or predictions, as described in `imgtool.wordnet.metrics.measures`.
            labels: integers [N]: class indices.

        Raises:
            InputError: shapes that do not match. The range of the class indices is checked by `result`.
        """
        scores = as_array(scores)
        if scores.ndim == 2 and is_float(scores) and scores.shape[1] != self.hierarchy.num_classes:
            raise InputError(f"scores of {scores.shape[1]:,} classes for a hierarchy of {self.hierarchy.num_classes:,}")
        most = scores.shape[1] if scores.ndim == 2 else 1
        best = top_k(scores, min(max(self.k), most))
        y = like(labels, best)
        if y.ndim != 1 or len(y) != len(best):
            raise InputError(f"{len(best):,} images have predictions but the labels are {list(y.shape)}")
        if len(best):  # copies, because a loader may reuse its memory
            self._predictions.append(best.clone() if is_torch(best) else best.copy())
            self._labels.append(y.clone() if is_torch(y) else y.copy())

    def result(self) -> dict[str, Metric]:
        """Computes the metrics of all images.

        Returns:
            The metrics by name, in the order in which to print them: `top1` and `top5` (one per k),
                `hierarchical_distance@1` and `hierarchical_distance@5`, `mistake_severity`, `hierarchical_precision`,
                `hierarchical_recall`, `hierarchical_f1`, `depth_accuracy`, and if requested `superclass_accuracy` and
                `real_accuracy`.

        Raises:
            InputError: there are no images, a label or prediction is not a class index, or `real` has another length.
        """
        if not self._labels:
            raise InputError("no images to evaluate")
        widest = min(best.shape[1] for best in self._predictions)
        predictions = _concatenate([best[:, :widest] for best in self._predictions])
        labels = _concatenate(self._labels)
        h, first = self.hierarchy, predictions[:, :1]
        ks = [(k, min(k, widest)) for k in self.k if k <= widest or widest == h.num_classes]
        if not ks:
            raise InputError(f"k={min(self.k)} needs more predictions: an image has only {widest}")
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
    """Computes all metrics of some scores: the result of an `Evaluation` with one update.

    Args:
        h: the hierarchy of the class indices.
        scores: scores or predictions, as described in `imgtool.wordnet.metrics.measures`.
        labels: integers [N]: class indices.
        k: as for `Evaluation`.
        superclasses: as for `Evaluation`.
        real: as for `Evaluation`.

    Returns:
        The metrics by name, as from `Evaluation.result`.

    Raises:
        InputError: shapes that do not match, no images, or a label or prediction that is not a class index.
        UnknownSynsetError: a key of `superclasses` matches no synset, or several.
    """
    evaluation = Evaluation(h, k, superclasses, real)
    evaluation.update(scores, labels)
    return evaluation.result()


def _concatenate(parts: list[Array]) -> Array:
    if is_torch(parts[0]):
        return sys.modules["torch"].cat(parts)
    return np.concatenate(parts)
