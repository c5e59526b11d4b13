"""Superclass tasks: classes grouped into superclasses, and split into source and target subpopulations.

After Santurkar, Tsipras and Madry, BREEDS: Benchmarks for Subpopulation Shift, ICLR 2021 (arXiv:2008.04859): a model
learns superclasses from some of their classes (the source) and is tested on others (the target).

`superclasses` and `subpopulations` make such tasks from any hierarchy. `breeds` returns the published tasks, which
these functions cannot make, because their authors edited WordNet's tree by hand.

In a superclass task no class may be in two superclasses, so it needs a tree. This module uses the tree of
`Synset.path`: a class belongs to the superclass on its longest path from the root. So every class of a superclass is a
kind of it, but a class that is a kind of two superclasses is in only one of them.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import InputError, listed
from imgtool.wordnet.graph.label_map import DROPPED, LabelMap
from imgtool.wordnet.graph.names import unique_names
from imgtool.wordnet.graph.types import Key
from imgtool.wordnet.hierarchy import Hierarchy
from imgtool.wordnet.tables.nouns import DATA
from imgtool.wordnet.tables.orders import ilsvrc2012_wnids
from imgtool.wordnet.tasks.trees import Tree, make_tree

IntArray = npt.NDArray[np.int64]
Kind = Literal["rand", "good", "bad"]
KINDS = ("rand", "good", "bad")
_NO_CUT = np.iinfo(np.int64).max // 4  # the cost of a cut that does not exist


@dataclass(frozen=True, eq=False)
class Task:
    """Superclasses and their classes.

    Attributes:
        names: the unique names of the superclasses, in the order of their labels.
        superclasses: the wnid of each superclass; in a published task, the ID in the authors' tree, which may not be
            WordNet's ("dummy9").
        source: the class indices of each superclass in the source, int64.
        target: the class indices of each superclass in the target, disjoint from `source`; empty for a task that is not
            split.
        wnids: the wnids of all classes of the hierarchy, in class order.
    """

    names: tuple[str, ...]
    superclasses: tuple[str, ...]
    source: tuple[IntArray, ...]
    target: tuple[IntArray, ...]
    wnids: tuple[str, ...]

    def __len__(self) -> int:
        """The number of superclasses."""
        return len(self.names)

    def labelmap(self, side: Literal["source", "target"] = "source") -> LabelMap:
        """Returns the label map of one side's classes to the superclasses. All other classes are dropped.

        Raises:
            InputError: another `side`, or `"target"` for a task that is not split.
        """
        if side not in ("source", "target"):
            raise InputError(f"side must be 'source' or 'target', not {side!r}")
        members = self.source if side == "source" else self.target
        if not members:
            raise InputError("the task is not split, so it has no target: split it with subpopulations")
        of_class = np.full(len(self.wnids), DROPPED, np.int64)
        for label, classes in enumerate(members):
            of_class[classes] = label
        return LabelMap(self.names, self.wnids, of_class)

    def __repr__(self) -> str:
        sizes = [sum(map(len, side)) for side in (self.source, self.target)]
        return f"<Task of {len(self)} superclasses: {sizes[0]:,} classes in the source, {sizes[1]:,} in the target>"


def superclasses(
    h: Hierarchy,
    *,
    size: int | None = None,
    depth: int | None = None,
    count: int | None = None,
    under: Key | None = None,
    balanced: bool = False,
    seed: int = 0,
) -> Task:
    """Groups the classes of a hierarchy into disjoint superclasses. The task is not split: all classes are the source.

    At least one of `size`, `depth` and `count` is needed; `depth` and `count` exclude each other.

    Args:
        h: the hierarchy.
        size: the minimum number of classes in a superclass. Given alone, superclasses are the lowest synsets with at
            least this many classes, none of them above another.
        depth: superclasses are the synsets at this depth in the tree (`Synset.depth[1]`).
        count: the number of superclasses. They leave out as few classes as possible. Among such choices they are the
            most even: the sum of their squared sizes is minimal. Among synsets with the same classes, the lowest
            is taken.
        under: restricts superclasses to those at or below this synset; None for all.
        balanced: reduces every superclass to as many classes as the smallest has, drawn at random with `seed`.
        seed: the seed of the random draw.

    Returns:
        The task: superclasses in the order of their wnids, classes ascending.

    Raises:
        UnknownSynsetError: `under` matches no synset, or several.
        InputError: none of size, depth and count is given, or both depth and count; a number is not positive; there are
            no such superclasses.
    """
    rules = {"size": size, "depth": depth, "count": count}
    if all(value is None for value in rules.values()) or (depth is not None and count is not None):
        raise InputError("give size, depth or count to choose superclasses by, and not both depth and count")
    for rule, value in rules.items():
        if value is not None and value < (rule != "depth"):
            raise InputError(f"{rule} must be positive, not {value}")
    tree = make_tree(h)
    paths = _paths(h, tree, under)
    sizes = np.bincount(paths[paths >= 0], minlength=len(tree))
    enough = sizes >= (size or 1)
    if count is not None:
        chosen = _even_cut(tree, sizes, size or 1, count)
    elif depth is not None:
        chosen = np.flatnonzero(enough & (tree.depth == depth))
    else:
        enough[tree.parent[enough & (tree.parent >= 0)]] = False  # all further ancestors have enough classes, too
        chosen = np.flatnonzero(enough)
    if not chosen.size:
        wanted = ", ".join(f"{rule} {value}" for rule, value in rules.items() if value is not None)
        raise InputError(f"no superclasses with {wanted} among {int((paths >= 0).any(axis=1).sum()):,} classes")
    label_of_node = np.full(len(tree) + 1, -1)
    label_of_node[chosen] = np.arange(len(chosen))
    of_class = label_of_node[paths].max(
        axis=1, initial=-1
    )  # the -1 after the end of a path indexes the last entry, which is -1
    members = [np.flatnonzero(of_class == label) for label in range(len(chosen))]
    if balanced:
        smallest, rng = min(map(len, members)), random.Random(seed)
        members = [np.array(sorted(rng.sample(classes.tolist(), smallest)), np.int64) for classes in members]
    synsets = h.synsets(chosen)
    return Task(tuple(unique_names(synsets)), tuple(s.wnid for s in synsets), tuple(members), (), tuple(h.wnids))


def subpopulations(h: Hierarchy, task: Task, kind: Kind = "rand", seed: int = 0) -> Task:
    """Splits the classes of every superclass, source and target together, into a new source and target of equal size.

    If the number of classes is odd, the source gets one more.

    Args:
        h: the hierarchy of the task's classes, for its tree.
        task: the task to split.
        kind: how to split:

            - `"rand"`: at random;
            - `"good"`: alternating in the order of the tree, so that neighbours in the tree are on both sides and the
              target is as similar to the source as possible;
            - `"bad"`: cut in the middle of the order of the tree, so that whole subtrees are on one side and the target
              is as different from the source as possible.
        seed: the seed of the random split, and of the order of children in the tree.

    Returns:
        The task with the same superclasses and the new split.

    Raises:
        InputError: another kind, another hierarchy, or a superclass of a single class.
    """
    if kind not in KINDS:
        raise InputError(f"kind must be one of {', '.join(map(repr, KINDS))}, not {kind!r}")
    if list(task.wnids) != h.wnids:
        raise InputError(f"the task has {len(task.wnids):,} other classes than {h!r}")
    both = [[*a.tolist(), *b.tolist()] for a, b in zip_longest(task.source, task.target, fillvalue=np.array([]))]
    single = [name for name, members in zip(task.names, both, strict=True) if len(members) < 2]
    if single:
        raise InputError(f"superclasses of a single class cannot be split: {listed(single)}")
    rng = random.Random(seed)
    rank = rng.sample(range(len(h)), len(h))
    paths = [[rank[node] for node in reversed(path) if node >= 0] for path in make_tree(h).paths.tolist()]
    source, target = [], []
    for members in both:
        rng.shuffle(members)
        if kind != "rand":
            members.sort(key=paths.__getitem__)
        half = (len(members) + 1) // 2
        parts = (members[::2], members[1::2]) if kind == "good" else (members[:half], members[half:])
        source.append(np.array(sorted(parts[0]), np.int64))
        target.append(np.array(sorted(parts[1]), np.int64))
    return Task(task.names, task.superclasses, tuple(source), tuple(target), task.wnids)


def breeds(name: str, kind: Kind | None = None) -> Task:
    """Returns a published BREEDS task over ILSVRC2012's classes, exactly as its authors' code makes it.

    The tasks are stored as tables (data/breeds.json), because the authors edited WordNet's tree by hand: some nodes of
    their tree are not WordNet's, and the others do not have the classes that they have in WordNet.

    Args:
        name: `"entity13"`, `"entity30"`, `"living17"` or `"nonliving26"`.
        kind: how the task is split into source and target, as for `subpopulations`; None for a task that is not split.

    Returns:
        The task: superclasses and classes in the published order.

    Raises:
        InputError: an unknown name or kind.
    """
    if name not in _published():
        raise InputError(f"no BREEDS task {name!r}: use one of {', '.join(map(repr, _published()))}")
    if kind is not None and kind not in KINDS:
        raise InputError(f"kind must be None or one of {', '.join(map(repr, KINDS))}, not {kind!r}")
    task = _published()[name]
    source, target = (
        tuple(np.array(members, np.int64) for members in task[str(kind).lower()][side]) for side in ("source", "target")
    )
    names = tuple(label.split(",")[0] for label in task["labels"])
    return Task(names, tuple(task["superclasses"]), source, target, tuple(ilsvrc2012_wnids()))


@cache
def _published() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DATA / "breeds.json").read_text("ascii"))
    return {name: task for name, task in content.items() if name != "source"}


def _paths(h: Hierarchy, tree: Tree, under: Key | None) -> IntArray:
    """Returns the paths of the tree, [classes, longest], with -1 for nodes that are not at or below `under`."""
    if under is None:
        return tree.paths
    top = h[under].node
    kept = (tree.paths == top).any(axis=1, keepdims=True) & (tree.depth[tree.paths] >= tree.depth[top])
    return np.where(kept, tree.paths, -1)


def _even_cut(tree: Tree, sizes: IntArray, least: int, count: int) -> IntArray:
    """Returns the nodes that `superclasses` chooses for `count`, ascending; none is above another.

    Uses dynamic programming from the leaves up: for every node and every k, it computes the minimum cost of k
    superclasses at or below the node. A superclass costs its size squared. A class that is left out costs more than all
    superclasses together could.

    Args:
        tree: the tree.
        sizes: int64 [nodes]: the number of classes at or below each node. Nodes without classes are ignored.
        least: the minimum size of a superclass.
        count: the number of superclasses.
    """
    nodes = np.flatnonzero(sizes)
    children: dict[int, list[int]] = {node: [] for node in [-1, *nodes.tolist()]}
    for node in nodes.tolist():
        above = int(tree.parent[node])
        children[above if above in children else -1].append(node)
    total = int(sizes[children[-1]].sum())
    cost: dict[int, IntArray] = {}  # per node: the minimum cost by number of superclasses at or below it
    shares: dict[int, list[IntArray]] = {}  # per node and child: how many of k superclasses the child gets
    itself: set[int] = set()  # nodes that are themselves the best single superclass
    for node in [*nodes[np.argsort(-tree.depth[nodes], kind="stable")].tolist(), -1]:
        own = int(sizes[node] - sizes[children[node]].sum()) if node >= 0 else 0  # 1 if the node is a class
        best = np.array([own * (total**2 + 1), _NO_CUT])
        shares[node] = []
        for child in children[node]:
            best, share = _merged(best, cost.pop(child), count)
            shares[node].append(share)
        if node >= 0 and sizes[node] >= least and sizes[node] ** 2 < best[1]:
            best[1] = sizes[node] ** 2
            itself.add(node)
        cost[node] = best
    if count >= len(cost[-1]) or cost[-1][count] >= _NO_CUT:
        raise InputError(f"{total:,} classes cannot be divided into {count:,} superclasses of at least {least:,}")
    chosen: list[int] = []
    waiting = [(-1, count)]
    while waiting:
        node, number = waiting.pop()
        if number == 1 and node in itself:
            chosen.append(node)
            continue
        for child, share in zip(reversed(children[node]), reversed(shares[node]), strict=True):
            waiting.append((child, int(share[number])))
            number -= int(share[number])
    return np.array(sorted(chosen), np.int64)


def _merged(a: IntArray, b: IntArray, most: int) -> tuple[IntArray, IntArray]:
    """Returns, for every k up to `most`, the minimum of `a[k - i] + b[i]` over i, and the i that attains it."""
    length = min(len(a) + len(b) - 1, most + 1)
    padded = np.full(length + len(b), _NO_CUT)
    padded[len(b) : len(b) + min(len(a), length)] = a[:length]
    i = np.arange(len(b))
    sums = np.minimum(padded[len(b) + np.arange(length)[:, None] - i] + b, _NO_CUT)  # [k, i]
    share = sums.argmin(axis=1)
    return sums[np.arange(length), share], share
