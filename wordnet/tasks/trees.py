"""Makes a tree from the graph, with one parent for every synset. Some losses are defined only on a tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import InputError
from imgtool.wordnet.graph.types import Key
from imgtool.wordnet.hierarchy import Hierarchy

IntArray: TypeAlias = npt.NDArray[np.int64]

POLICIES = ("longest", "first")


@dataclass(frozen=True)
class Choice:
    """The choice made for a synset with several parents: which was kept and which were dropped, as NLTK names."""

    synset: str
    kept: str
    dropped: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Tree:
    """A tree: each node has one parent. Create one with `make_tree` from a hierarchy, or from two arrays.

    Attributes:
        parent: int64 [nodes]: the parent of each node, -1 for a root. A parent may come before or after its children.
        class_nodes: int64 [classes]: the node of each class.
        policy: how parents were chosen.
        choices: the choice for each node that had several parents, in node order.

    Raises:
        InputError: a parent or a class is not a node, or there is a cycle.
    """

    parent: IntArray
    class_nodes: IntArray
    policy: str = "by hand"
    choices: tuple[Choice, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for name in ("parent", "class_nodes"):
            object.__setattr__(self, name, np.array(getattr(self, name), np.int64))
        nodes = len(self.parent)
        if not ((self.parent >= -1) & (self.parent < nodes)).all():
            raise InputError(f"parents in a tree of {nodes} nodes must be from -1 (none) to {nodes - 1}")
        if not ((self.class_nodes >= 0) & (self.class_nodes < nodes)).all():
            raise InputError(f"classes in a tree of {nodes} nodes must be at nodes 0 to {nodes - 1}")
        if (self._chains[-1] >= 0).any():
            raise InputError("a tree cannot have a cycle")

    def __len__(self) -> int:
        return len(self.parent)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_nodes)

    @cached_property
    def depth(self) -> IntArray:
        """int64 [nodes]: the number of edges to the root."""
        return np.asarray((self._chains >= 0).sum(axis=0) - 1)

    @cached_property
    def paths(self) -> IntArray:
        """int64 [classes, longest path]: the node of each class, its parent, and so on up to the root; then -1."""
        return np.ascontiguousarray(self._chains[:-1, self.class_nodes].T)

    def membership(self) -> npt.NDArray[np.bool_]:
        """Returns bool [classes, nodes]: whether the class is at or below the node."""
        at_or_below = np.zeros((self.num_classes, len(self) + 1), np.bool_)
        at_or_below[np.arange(self.num_classes)[:, None], self.paths] = True
        return at_or_below[:, :-1]  # without the last column, which the -1s of paths set

    @cached_property
    def _chains(self) -> IntArray:
        """int64 [steps, nodes]: row s is the ancestor s steps up; the last row is all -1 unless there is a cycle."""
        chains = [np.arange(len(self))]
        with_none = np.append(self.parent, -1)  # so that the parent of -1 is -1
        while (chains[-1] >= 0).any() and len(chains) <= len(self):
            chains.append(with_none[chains[-1]])
        return np.stack(chains)


def make_tree(h: Hierarchy, policy: str | Mapping[Key, Key] = "longest") -> Tree:
    """Makes a tree of a hierarchy by keeping one parent, a hypernym or what it is an instance of, for every synset.

    Args:
        h: the hierarchy.
        policy: which parent to keep of several:

            - `"longest"`: the parent on the longest path from the root, the first one listed among equals; the path of
              a class in the tree is then `Synset.path`;
            - `"first"`: the parent that WordNet lists first;
            - a mapping `{child: parent}` of keys: these parents, and `"longest"` for all other synsets.

    Returns:
        A tree of the same nodes. Its `choices` list every synset that had several parents.

    Raises:
        UnknownSynsetError: a key matches no synset, or several.
        InputError: an unknown policy, or a parent in the mapping that is not a parent of its child.
    """
    dag = h.dag
    explicit = policy if isinstance(policy, Mapping) else {}
    if isinstance(policy, str) and policy not in POLICIES:
        raise InputError(f"unknown tree policy {policy!r}: use {', '.join(POLICIES)}, or a mapping of child to parent")
    several = np.flatnonzero(np.diff(dag.indptr) > 1)
    parent = np.full(len(h), -1, np.int64)
    has_parent = np.diff(dag.indptr) > 0
    parent[has_parent] = dag.parents[dag.indptr[:-1][has_parent]]
    if policy != "first":
        high = dag.depths[1]
        for node in several.tolist():
            above = dag.parents[dag.edges(node)]
            parent[node] = above[np.argmax(high[above])]
    for child, kept in explicit.items():
        lower, upper = h[child], h[kept]
        if upper.node not in dag.parents[dag.edges(lower.node)]:
            parents = ", ".join(synset.name for synset in lower.parents + lower.instance_of) or "none (it is the root)"
            raise InputError(f"{upper.name} is not a parent of {lower.name}, whose parents are: {parents}")
        parent[lower.node] = upper.node
    choices = tuple(_choice(h, node, int(parent[node])) for node in several.tolist())
    return Tree(parent, h.class_nodes, policy if isinstance(policy, str) else "explicit", choices)


def _choice(h: Hierarchy, node: int, kept: int) -> Choice:
    above = h.dag.parents[h.dag.edges(node)]
    synset, parent, *others = (h.tables.name(int(h.rows[other])) for other in (node, kept, *above[above != kept]))
    return Choice(synset, parent, tuple(others))
