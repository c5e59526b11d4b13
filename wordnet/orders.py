"""The orders in which the 1000 ILSVRC2012 classes are numbered, and the one place that converts between them.

Inside imgtool a label is a class index: ``"sorted"``, the 0-based position among the sorted wnids. Files and
models made elsewhere use other orders; they are converted where they enter or leave, by :func:`convert`.

========================  ==========================================================================
order                     labels
========================  ==========================================================================
``"sorted"``              0 to 999, wnids in sorted order (torchvision's and most checkpoints')
``"ilsvrc2012_id"``       1 to 1000, the development kit's ILSVRC2012_ID (its validation ground truth)
========================  ==========================================================================

Source: data/in1k.tsv, which names its own.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import InputError
from imgtool.wordnet.tables import DATA

IntArray = npt.NDArray[np.int64]


@cache
def _in1k() -> tuple[tuple[str, ...], IntArray, IntArray]:
    lines = (DATA / "in1k.tsv").read_text("ascii").splitlines()
    columns = zip(*(line.split("\t") for line in lines if not line.startswith("#")), strict=True)
    wnids, ids, counts = columns
    return tuple(wnids), np.array(ids, np.int64), np.array(counts, np.int64)


def ilsvrc2012_wnids() -> list[str]:
    """The 1000 wnids, sorted: position = class index."""
    return list(_in1k()[0])


def ilsvrc2012_ids() -> IntArray:
    """int64 [1000]: the development kit's 1-based ILSVRC2012_ID of each class index."""
    return _in1k()[1].copy()


def ilsvrc2012_train_counts() -> IntArray:
    """int64 [1000]: the published number of training images of each class index; 1,281,167 in all."""
    return _in1k()[2].copy()


@cache
def _orders() -> dict[str, IntArray]:
    """int64 [1000] by order: the label that each class index has in it."""
    return {"sorted": np.arange(1000), "ilsvrc2012_id": _in1k()[1]}


def convert(y: npt.ArrayLike, src: str, dst: str) -> IntArray:
    """Labels ``y`` numbered in order ``src``, renumbered in order ``dst``.

    Args:
        y: integers of any shape; a single integer too.
        src, dst: ``"sorted"`` or ``"ilsvrc2012_id"``.

    Returns:
        int64, the shape of ``y``.

    Raises:
        InputError: an unknown order, labels that are not integers, or a label outside ``src``'s range.
    """
    orders = _orders()
    for order in (src, dst):
        if order not in orders:
            raise InputError(f"unknown order {order!r}: one of {', '.join(map(repr, orders))}")
    source, target = orders[src], orders[dst]
    labels = np.asarray(y)
    if labels.size and labels.dtype.kind not in "iu":
        raise InputError(f"labels must be integers, not {labels.dtype}")
    low, high = source.min(), source.max()
    wrong = labels[(labels < low) | (labels > high)]
    if wrong.size:
        fits = [name for name, o in orders.items() if o.min() <= labels.min() and labels.max() <= o.max()]
        raise InputError(
            f"label {wrong.flat[0]} is outside {low} to {high}, the range of order {src!r} ({wrong.size:,} of "
            f"{labels.size:,} labels are); they go from {labels.min()} to {labels.max()}, which fits "
            + (" or ".join(map(repr, fits)) or "no order known here")
        )
    lookup = np.zeros(high + 1, np.int64)
    lookup[source] = target
    return np.asarray(lookup[labels.astype(np.int64)])
