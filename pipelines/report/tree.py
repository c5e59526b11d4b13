"""The classes of a data set as a tree, with their samples counted at each node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from imgtool import wordnet


@dataclass
class ClassNode:
    """A synset, or a class that is not a synset. ``counts``: stored samples at or below it, per split.

    ``class_index`` is None for a node that only groups classes."""

    name: str
    counts: dict[str, int] = field(default_factory=dict)
    children: list[ClassNode] = field(default_factory=list)
    class_index: int | None = None

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    @cached_property
    def classes(self) -> int:
        """The number of classes at or below this node."""
        return (self.class_index is not None) + sum(child.classes for child in self.children)

    def leaves(self) -> Iterator[ClassNode]:
        """Yields the classes at or below this node."""
        if self.class_index is not None:
            yield self
        for child in self.children:
            yield from child.leaves()

    def class_indices(self) -> list[int]:
        return [leaf.class_index for leaf in self.leaves() if leaf.class_index is not None]


def class_tree(class_table: pa.Table, counts: dict[str, list[int]]) -> ClassNode:
    """Builds the tree from the class table's paths (root first). A class that is not a synset goes below the root.

    ``counts[split][class_index]``. A chain of synsets with one child each is merged into its last one.
    """
    full = wordnet.load("full")
    root = ClassNode("")
    nodes: dict[str, ClassNode] = {"": root}  # by wnid
    for row in class_table.select(["class_index", "name", "path"]).to_pylist():
        parent = root
        for wnid in (row["path"] or [])[:-1]:
            if wnid not in nodes:
                nodes[wnid] = ClassNode(full[wnid].lemmas[0])
                parent.children.append(nodes[wnid])
            parent = nodes[wnid]
        wnid = (row["path"] or [""])[-1]
        class_counts = {split: column[row["class_index"]] for split, column in counts.items()}
        if wnid and wnid in nodes:  # a class that is a hypernym of other classes
            nodes[wnid].class_index, nodes[wnid].counts = row["class_index"], class_counts
        else:
            leaf = ClassNode(row["name"], class_counts, class_index=row["class_index"])
            parent.children.append(leaf)
            if wnid:
                nodes[wnid] = leaf
    _merge_and_sum(root, list(counts))
    while len(root.children) == 1 and root.children[0].children:
        root = root.children[0]
    return root


def _merge_and_sum(node: ClassNode, splits: list[str]) -> None:
    """Merges single-child chains, adds up the counts and sorts children by their number of classes, recursively."""
    own = dict(node.counts)
    for child in node.children:
        while len(child.children) == 1 and child.class_index is None:
            child.name, child.class_index = child.children[0].name, child.children[0].class_index
            child.counts, child.children = child.children[0].counts, child.children[0].children
        _merge_and_sum(child, splits)
    node.counts = {s: own.get(s, 0) + sum(child.counts.get(s, 0) for child in node.children) for s in splits}
    node.children.sort(key=lambda child: (-child.classes, child.name))


def superclasses(tree: ClassNode, count: int) -> list[ClassNode]:
    """Cuts the tree into about ``count`` parts: splits the part with the most classes until there are enough."""
    parts = [tree]
    while len(parts) < count:
        largest = max(parts, key=lambda node: (bool(node.children), node.classes))
        if not largest.children:
            break
        at = parts.index(largest)
        # small children would each be a part: they stay together as "other <parent>"
        large = [child for child in largest.children if child.classes >= max(largest.classes // 6, 1)]
        rest = [child for child in largest.children if not any(child is other for other in large)]
        if not large or (len(large) == 1 and not rest):
            large, rest = largest.children, []
        if rest:
            name = f"other {largest.name.removeprefix('other ')}".strip()
            large = [*large, ClassNode(name, children=rest)]
        parts[at : at + 1] = large
    return parts
