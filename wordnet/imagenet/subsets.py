"""Published subsets of ILSVRC2012's classes: masks, and conversion between their labels and class indices.

| subset | labels | classes | description |
| --- | --- | --- | --- |
| `"imagenet-a"` | 200 | 200 | ImageNet-A, natural adversarial examples |
| `"imagenet-r"` | 200 | 200 | ImageNet-R, renditions |
| `"objectnet"` | 113 | 125 | ObjectNet's classes that ImageNet has; 9 of them hold two or three of its classes |
| `"tiny-imagenet-200"` | 200 | 200 | Tiny-ImageNet; all of its classes are ILSVRC2012's |
| `"imagenette"` | 10 | 10 | Imagenette, ten classes that are easy to distinguish |
| `"imagewoof"` | 10 | 10 | Imagewoof, ten breeds of dogs that are not |

The labels of a subset number its wnids in sorted order, as a folder of class folders is read. (Tiny-ImageNet's
wnids.txt is not sorted.) ObjectNet has names instead of wnids; its labels follow the order of the published mapping.
The sources are listed in data/subsets.json.
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
    """A published subset of ILSVRC2012's classes, with labels of its own. Get one with `subset`.

    Attributes:
        name: the name of the subset, from the table of this module.
        source: the publication that the subset comes from.
        labels: the wnid, or ObjectNet's name, of each label of the subset.
        of_class: int64 [1000], read-only: the subset's label for each class index, -1 for classes outside of it.
    """

    name: str
    source: str
    labels: tuple[str, ...]
    of_class: IntArray

    def __len__(self) -> int:
        """The number of labels of the subset."""
        return len(self.labels)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """bool [1000]: whether the class is in the subset. `scores[:, mask]` are the scores of its classes."""
        return self.of_class >= 0

    @property
    def indices(self) -> IntArray:
        """int64, ascending: the class indices in the subset."""
        return np.flatnonzero(self.of_class >= 0)

    @property
    def labelmap(self) -> LabelMap:
        """The label map of the 1000 classes to the subset's labels: `aggregate(scores, "max")` is [..., labels]."""
        return LabelMap(self.labels, ilsvrc2012_wnids(), self.of_class)

    def from_in1k(self, y: npt.ArrayLike) -> IntArray:
        """Converts class indices to labels of the subset: int64 of the same shape, -1 for classes outside the subset.

        Raises:
            InputError: `y` is not made of class indices.
        """
        return self.of_class[_checked(y, len(self.of_class), "class index")]

    def to_in1k(self, labels: npt.ArrayLike) -> IntArray:
        """Converts labels of the subset to class indices: int64 of the same shape.

        Raises:
            InputError: `labels` is not made of labels of the subset, or has labels of ObjectNet that hold several
                classes. Use `classes` for these, and `labelmap` for the other direction.
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
        """Returns the class indices of a label of the subset: int64, ascending.

        Raises:
            InputError: `label` is not a label of the subset.
        """
        return np.flatnonzero(self.of_class == _checked(label, len(self), f"label of {self.name}"))

    def __repr__(self) -> str:
        return f"<Subset {self.name}: {len(self):,} labels, {len(self.indices):,} of 1,000 classes>"


def subset(name: str) -> Subset:
    """Returns a published subset.

    Args:
        name: a name from the table of this module; case, spaces, hyphens and underscores do not matter.

    Raises:
        InputError: an unknown name.
    """
    key = "-".join(name.lower().replace("_", " ").replace("-", " ").split())
    if key not in _published():
        raise InputError(f"no subset {name!r}: use one of {', '.join(map(repr, _published()))}")
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
        raise InputError(f"{wrong.flat[0]} is not a {what}: they go from 0 to {count - 1}")
    return labels.astype(np.int64)
