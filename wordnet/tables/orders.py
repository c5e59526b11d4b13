"""The orders in which ImageNet's classes are numbered, and `convert`, the only place that converts between them.

Inside imgtool, a label is a class index: the 0-based position among the sorted wnids, order `"sorted"`. Other files and
models use other orders. Their labels are converted on input and output.

| order | labels | numbering |
| --- | --- | --- |
| `"sorted"` | 0-999 | ILSVRC2012's wnids in sorted order (torchvision and most checkpoints) |
| `"ilsvrc2012_id"` | 1-1000 | the development kit's ILSVRC2012_ID (its validation ground truth) |
| `"tf_slim"` | 0-1000 | 0 is background, then sorted + 1 (TF-slim, early Keras and TF-Hub models) |
| `"darknet"` | 0-999 | ILSVRC2012_ID - 1: darknet's imagenet.labels.list begins with kit fox, English setter |
| `"in22k"` | 0-21840 | the 21,841 wnids of fall11 in sorted order (ImageNet-21k and -22k models) |
| `"in22k_ms"` | 0-21841 | ILSVRC2012's 1000 wnids in sorted order, then the other wnids of fall11 in sorted order |

n04399382, the teddy, is the only class of ILSVRC2012 that fall11 lacks. So `"in22k"` has no label for it. In
`"in22k_ms"`, Microsoft's order (labelmap_22k_reorder.txt of its FocalNet), it has label 850,
but no image has this label.

The sources are data/in1k.tsv, which lists its own, and the column class_sets of the tables.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import InputError
from imgtool.wordnet.tables.nouns import DATA, tables

IntArray = npt.NDArray[np.int64]

BACKGROUND = 0  # used in place of a wnid's number; no noun has this offset

# The lowest and the highest label of each order.
_RANGES = {
    "sorted": (0, 999),
    "ilsvrc2012_id": (1, 1000),
    "tf_slim": (0, 1000),
    "darknet": (0, 999),
    "in22k": (0, 21_840),
    "in22k_ms": (0, 21_841),
}


@cache
def _in1k() -> tuple[tuple[str, ...], IntArray, IntArray]:
    lines = (DATA / "in1k.tsv").read_text("ascii").splitlines()
    columns = zip(*(line.split("\t") for line in lines if not line.startswith("#")), strict=True)
    wnids, ids, counts = columns
    return tuple(wnids), np.array(ids, np.int64), np.array(counts, np.int64)


def ilsvrc2012_wnids() -> list[str]:
    """Returns the 1000 wnids of ILSVRC2012, sorted: the position is the class index."""
    return list(_in1k()[0])


def ilsvrc2012_ids() -> IntArray:
    """Returns int64 [1000]: the development kit's 1-based ILSVRC2012_ID of each class index."""
    return _in1k()[1].copy()


def ilsvrc2012_train_counts() -> IntArray:
    """Returns int64 [1000]: the published number of training images of each class index; 1,281,167 in total."""
    return _in1k()[2].copy()


def convert(y: npt.ArrayLike, src: str, dst: str, *, missing: int | None = None) -> IntArray:
    """Converts labels from one order of the classes to another.

    Args:
        y: labels in order `src`: integers of any shape, or a single integer.
        src: the order of `y`, one of those in the table of this module.
        dst: the order to convert to, likewise.
        missing: the result for a label whose class `dst` does not have, for example -1; None to raise an error instead.

    Returns:
        Labels in order `dst`, int64 of the shape of `y`.

    Raises:
        InputError: an unknown order, labels that are not integers, a label outside the range of `src`, or a label whose
            class `dst` does not have while `missing` is None.
    """
    for order in (src, dst):
        if order not in _RANGES:
            raise InputError(f"unknown order {order!r}: use one of {', '.join(map(repr, _RANGES))}")
    labels = np.asarray(y)
    if labels.size and labels.dtype.kind not in "iu":
        raise InputError(f"labels must be integers, not {labels.dtype}")
    low, high = _RANGES[src]
    wrong = labels[(labels < low) | (labels > high)]
    if wrong.size:
        raise InputError(
            f"label {wrong.flat[0]} is outside {low} to {high}, the range of order {src!r} ({wrong.size:,} of "
            f"{labels.size:,} labels are); the labels go from {labels.min()} to {labels.max()}, which fits "
            + _fitting(int(labels.min()), int(labels.max()))
        )
    lookup, exists = _lookup(src, dst)
    places = labels.astype(np.int64) - low
    there = exists[places]
    if missing is None and not there.all():
        raise _no_label(labels[~there], src, dst, labels.size)
    return np.asarray(np.where(there, lookup[places], 0 if missing is None else missing))


class _Lookup(NamedTuple):
    label: IntArray  # the label in dst, by label in src minus the lowest one of src
    exists: npt.NDArray[np.bool_]  # whether dst has a label for it


@cache
def _lookup(src: str, dst: str) -> _Lookup:
    source, target = _offsets(src), _offsets(dst)
    by_offset = np.argsort(target, kind="stable")
    places = by_offset[np.searchsorted(target, source, sorter=by_offset).clip(max=len(target) - 1)]
    return _Lookup(places + _RANGES[dst][0], target[places] == source)


@cache
def _offsets(order: str) -> IntArray:
    """Returns the number in the wnid of each label of an order; BACKGROUND for the label that is not a class."""
    if order == "in22k":
        return tables().offset[tables().class_set("in22k")].astype(np.int64)
    in1k = _digits(_in1k()[0])
    if order == "in22k_ms":
        in22k = _offsets("in22k")
        return np.concatenate([in1k, in22k[~np.isin(in22k, in1k)]])
    if order == "tf_slim":
        return np.concatenate([[BACKGROUND], in1k])
    return in1k if order == "sorted" else in1k[np.argsort(_in1k()[1], kind="stable")]


def _digits(wnids: tuple[str, ...] | list[str]) -> IntArray:
    return np.array([wnid[1:] for wnid in wnids]).astype(np.int64)


def _fitting(low: int, high: int) -> str:
    """Returns the orders that labels from low to high fit: those of ILSVRC2012's classes, or else any."""
    fits = [order for order, (lowest, highest) in _RANGES.items() if lowest <= low and high <= highest]
    in1k = [order for order in fits if not order.startswith("in22k")]
    return " or ".join(map(repr, in1k or fits)) or "no known order"


def _no_label(labels: npt.NDArray[np.integer], src: str, dst: str, total: int) -> InputError:
    offset = _offsets(src)[int(labels.flat[0]) - _RANGES[src][0]]
    what = "background" if offset == BACKGROUND else f"n{offset:08d}"
    return InputError(
        f"label {labels.flat[0]} of order {src!r} is {what}, which order {dst!r} does not have "
        f"({labels.size:,} of {total:,} labels); missing=-1 converts them to -1"
    )
