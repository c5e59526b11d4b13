"""The classes of a data set as a tree, with their samples counted at each node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from imgtool import wordnet


@dataclass
class Node:
    """A synset, or a class that is none. ``counts``: stored samples at or below it, a split."""

    name: str
    counts: dict[str, int] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)
    class_index: int | None = None

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    @cached_property
    def classes(self) -> int:
        return (self.class_index is not None) + sum(child.classes for child in self.children)

    def leaves(self) -> Iterator[Node]:
        """The classes at or below it."""
        if self.class_index is not None:
            yield self
        for child in self.children:
            yield from child.leaves()

    def class_indices(self) -> list[int]:
        return [leaf.class_index for leaf in self.leaves() if leaf.class_index is not None]


def class_tree(labels: pa.Table, counts: dict[str, list[int]]) -> Node:
    """The tree of the label map's paths to the root; a class that is no synset hangs below the root.

    ``counts[split][class_index]``. A chain of synsets with a single child each is drawn together to its last one.
    """
    full = wordnet.load("full")
    root = Node("")
    below: dict[str, Node] = {"": root}
    for row in labels.select(["class_index", "name", "path"]).to_pylist():
        above = root
        for wnid in (row["path"] or [])[:-1]:
            if wnid not in below:
                below[wnid] = Node(full[wnid].lemmas[0])
                above.children.append(below[wnid])
            above = below[wnid]
        own = (row["path"] or [""])[-1]
        mine = {split: column[row["class_index"]] for split, column in counts.items()}
        leaf = Node(row["name"], mine, class_index=row["class_index"])
        if own and own in below:  # a class that other classes are below
            below[own].class_index, below[own].counts = leaf.class_index, mine
        else:
            above.children.append(leaf)
            if own:
                below[own] = leaf
    _gather(root, list(counts))
    while len(root.children) == 1 and root.children[0].children:
        root = root.children[0]
    return root


def _gather(node: Node, splits: list[str]) -> None:
    own = dict(node.counts)
    for child in node.children:
        while len(child.children) == 1 and child.class_index is None:
            child.name, child.class_index = child.children[0].name, child.children[0].class_index
            child.counts, child.children = child.children[0].counts, child.children[0].children
        _gather(child, splits)
    node.counts = {s: own.get(s, 0) + sum(child.counts.get(s, 0) for child in node.children) for s in splits}
    node.children.sort(key=lambda child: (-child.classes, child.name))


def superclasses(tree: Node, count: int) -> list[Node]:
    """A cut through the tree in about ``count`` parts: the one with the most classes is split until there are."""
    parts = [tree]
    while len(parts) < count:
        largest = max(parts, key=lambda node: (bool(node.children), node.classes))
        if not largest.children:
            break
        at = parts.index(largest)
        # small children would each fill a row: they stay together under their parent's name
        large = [child for child in largest.children if child.classes >= max(largest.classes // 6, 1)]
        rest = [child for child in largest.children if not any(child is other for other in large)]
        if not large or (len(large) == 1 and not rest):
            large, rest = largest.children, []
        if rest:
            name = f"other {largest.name.removeprefix('other ')}".strip()
            large = [*large, Node(name, children=rest)]
        parts[at : at + 1] = large
    return parts
