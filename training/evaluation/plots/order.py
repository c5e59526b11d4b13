"""Orders classes by the hierarchy, so that similar classes are next to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from imgtool import wordnet
from imgtool.pipelines.report.tree import class_tree, superclasses
from imgtool.wordnet.tables.nouns import tables

MAX_SUPERCLASSES = 24  # that are marked in an order


class SuperclassRange(NamedTuple):
    """A range of positions in an order of classes: all classes below one synset."""

    name: str
    start: int
    stop: int  # exclusive


def class_order(wnids: Sequence[str], names: Sequence[str]) -> tuple[npt.NDArray[np.int64], list[SuperclassRange]]:
    """Returns class indices, int64 [classes], depth-first along WordNet's tree, and the ranges of superclasses in it.

    Classes that are not in WordNet come last and belong to no superclass. If no class is in WordNet, the order is that
    of the indices.
    """
    known = [tables().row(wnid) is not None for wnid in wnids]
    if not any(known):
        return np.arange(len(wnids)), []
    full = wordnet.load("full")
    paths = [[s.wnid for s in full[wnid].path] if is_known else [] for wnid, is_known in zip(wnids, known, strict=True)]
    table = pa.table(
        {"class_index": list(range(len(wnids))), "name": list(names), "path": pa.array(paths, pa.list_(pa.string()))}
    )
    tree = class_tree(table, {})
    leaves = [leaf.class_index for leaf in tree.leaves() if leaf.class_index is not None]
    # the sort is stable: known classes keep the tree's order
    order = np.array(sorted(leaves, key=lambda index: not known[index]), np.int64)
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    blocks = []
    for superclass in superclasses(tree, min(MAX_SUPERCLASSES, round(1.3 * len(order) ** 0.5))):
        positions = np.sort(position[[index for index in superclass.class_indices() if known[index]]])
        if len(positions) > 1 and positions[-1] - positions[0] == len(positions) - 1:  # contiguous
            blocks.append(SuperclassRange(superclass.name, int(positions[0]), int(positions[-1]) + 1))
    return order, sorted(blocks, key=lambda block: block.start)
