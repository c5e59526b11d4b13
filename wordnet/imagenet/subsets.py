"""The published subsets of ILSVRC2012's classes: as masks, and between their labels and class indices.

=======================  =======  =======  ======================================================================
subset                   labels   classes  what it is
=======================  =======  =======  ======================================================================
``"imagenet-a"``         200      200      ImageNet-A, natural adversarial examples
``"imagenet-r"``         200      200      ImageNet-R, renditions
``"objectnet"``          113      125      ObjectNet's classes that ImageNet has; 9 of them hold two or three of ours
``"tiny-imagenet-200"``  200      200      Tiny-ImageNet; all of its classes are ILSVRC2012's
``"imagenette"``         10       10       Imagenette, ten classes that are easily told apart
``"imagewoof"``          10       10       Imagewoof, ten dogs that are not
=======================  =======  =======  ======================================================================

A subset's own labels number its wnids in sorted order, as a folder of class folders is read (Tiny-ImageNet's wnids.txt
is not sorted). ObjectNet has names in the place of wnids: its labels follow the published mapping's order.
Source: data/subsets.json, which names its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import InputError
from imgtool.wordnet.graph.label_map import LabelMap
from imgtool.wordnet.tables.nouns import DATA
from imgtool.wordnet.tables.orders import ilsvrc2012_wnids

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Subset:
    """One subset; get one by :func:`subset`.

    Attributes:
        name: one of those that the module's head lists.
        source: the publication that it comes from.
        labels: a name for each of its own labels: wnids, or ObjectNet's names.
        of_class: int64 [1000], read-only: its own label for each class index, -1 for classes outside.
    """

    name: str
    source: str
    labels: tuple[str, ...]
    of_class: IntArray

    def __len__(self) -> int:
        """The number of its own labels."""
        return len(self.labels)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """bool [1000]: the class is in the subset. ``scores[:, mask]`` are the scores of its classes."""
        return self.of_class >= 0

    @property
    def indices(self) -> IntArray:
        """int64, ascending: the class indices in the subset."""
        return np.flatnonzero(self.of_class >= 0)

    @property
    def labelmap(self) -> LabelMap:
        """From the 1000 classes to its own labels: ``labelmap.aggregate(scores, "max")`` is [..., labels]."""
        return LabelMap(self.labels, ilsvrc2012_wnids(), self.of_class)

    def from_in1k(self, y: npt.ArrayLike) -> IntArray:
        """Class indices as its own labels, int64 of the same shape: -1 for those outside the subset.

        Raises:
            InputError: what are no class indices.
        """
        return self.of_class[_checked(y, len(self.of_class), "class index")]

    def to_in1k(self, labels: npt.ArrayLike) -> IntArray:
        """Its own labels as class indices, int64 of the same shape.

        Raises:
            InputError: what are no labels of the subset, or labels of ObjectNet that hold several classes: for these
                there is :meth:`classes`, and :attr:`labelmap` the other way.
        """
        y = _checked(labels, len(self), f"label of {self.name}")
        count = np.bincount(self.of_class[self.indices], minlength=len(self))
        several = y[count[y] > 1]
        if several.size:
            label = int(several.flat[0])
            raise InputError(
                f"label {label} of {self.name}, {self.labels[label]}, holds {count[label]} classes: "
                f"{', '.join(map(str, self.classes(label)))}; use classes(label)"
            )
        return self.indices[np.argsort(self.of_class[self.indices], kind="stable")][(np.cumsum(count) - count)[y]]

    def classes(self, label: int) -> IntArray:
        """int64, ascending: the class indices of one of its own labels. InputError where it is none."""
        return np.flatnonzero(self.of_class == _checked(label, len(self), f"label of {self.name}"))

    def __repr__(self) -> str:
        return f"<Subset {self.name}: {len(self):,} labels, {len(self.indices):,} of 1,000 classes>"


def subset(name: str) -> Subset:
    """A published subset by its name, see the module's head; case, spaces and underscores do not matter.

    Raises:
        InputError: an unknown name.
    """
    key = "-".join(name.lower().replace("_", " ").replace("-", " ").split())
    if key not in _published():
        raise InputError(f"no subset {name!r}: there are {', '.join(map(repr, _published()))}")
    return _subset(key)


@cache
def _subset(name: str) -> Subset:
    published = _published()[name]
    wnids = ilsvrc2012_wnids()
    members = published.get("labels") or {wnids[index]: [index] for index in published["classes"]}
    of_class = np.full(len(wnids), -1, np.int64)
    for label, indices in enumerate(members.values()):
        of_class[indices] = label
    of_class.setflags(write=False)
    return Subset(name, published["source"], tuple(members), of_class)


@cache
def _published() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DATA / "subsets.json").read_text("ascii"))
    return {name: value for name, value in content.items() if name != "about"}


def _checked(y: npt.ArrayLike, count: int, what: str) -> IntArray:
    labels = np.asarray(y)
    if labels.size and labels.dtype.kind not in "iu":
        raise InputError(f"labels must be integers, not {labels.dtype}")
    wrong = labels[(labels < 0) | (labels >= count)]
    if wrong.size:
        raise InputError(f"{wrong.flat[0]} is no {what}: they go from 0 to {count - 1}")
    return labels.astype(np.int64)
