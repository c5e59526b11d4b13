"""Hierarchical metrics of classifiers: single ones (measures.py), or all of them at once (evaluation.py)."""

from imgtool.wordnet.metrics.evaluation import Evaluation, evaluate
from imgtool.wordnet.metrics.measures import (
    Confusion,
    Metric,
    Superclasses,
    as_labelmap,
    confusion,
    depth_accuracy,
    hierarchical_distance,
    hierarchical_precision_recall,
    mistake_severity,
    real_accuracy,
    superclass_accuracy,
    top_k,
    top_k_accuracy,
)

__all__ = [
    "Confusion",
    "Evaluation",
    "Metric",
    "Superclasses",
    "as_labelmap",
    "confusion",
    "depth_accuracy",
    "evaluate",
    "hierarchical_distance",
    "hierarchical_precision_recall",
    "mistake_severity",
    "real_accuracy",
    "superclass_accuracy",
    "top_k",
    "top_k_accuracy",
]
