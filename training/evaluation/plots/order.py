"""Classes in the order of the hierarchy, so that what is alike stands together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from imgtool import wordnet
from imgtool.pipelines.report.tree import class_tree, superclasses
from imgtool.wordnet.tables.nouns import tables

BLOCKS = 24  # superclasses that are marked in an order, at most


class Block(NamedTuple):
    """The classes from ``start`` to before ``stop`` of an order are those below one synset."""

    name: str
    start: int
    stop: int


def class_order(wnids: Sequence[str], names: Sequence[str]) -> tuple[npt.NDArray[np.int64], list[Block]]:
    """Class indices, int64 [classes], depth-first along WordNet's tree, and the superclasses in that order.

    Classes that WordNet does not know come last, under no superclass; where it knows none, the order is that of the
    indices.
    """
    known = [tables().row(wnid) is not None for wnid in wnids]
    if not any(known):
        return np.arange(len(wnids)), []
    full = wordnet.load("full")
    paths = [[s.wnid for s in full[wnid].path] if here else [] for wnid, here in zip(wnids, known, strict=True)]
    table = pa.table(
        {"class_index": list(range(len(wnids))), "name": list(names), "path": pa.array(paths, pa.list_(pa.string()))}
    )
    tree = class_tree(table, {})
    leaves = [leaf.class_index for leaf in tree.leaves() if leaf.class_index is not None]
    order = np.array(sorted(leaves, key=lambda index: not known[index]), np.int64)  # stable: the tree's order stays
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    blocks = []
    for part in superclasses(tree, min(BLOCKS, round(1.3 * len(order) ** 0.5))):
        places = np.sort(position[[index for index in part.class_indices() if known[index]]])
        if len(places) > 1 and places[-1] - places[0] == len(places) - 1:
            blocks.append(Block(part.name, int(places[0]), int(places[-1]) + 1))
    return order, sorted(blocks, key=lambda block: block.start)
