"""Superclass tasks: classes gathered under synsets chosen by a rule, and split into source and target subpopulations.

After Santurkar, Tsipras and Madry, BREEDS: Benchmarks for Subpopulation Shift, ICLR 2021 (arXiv:2008.04859): a model
learns superclasses from some of their classes (the source) and is tested on others (the target).

:func:`superclasses` and :func:`subpopulations` make such tasks from any hierarchy. :func:`breeds` gives the published
ones, which cannot be had that way: their authors edited WordNet's tree by hand.

A superclass task wants a tree, that no class be under two superclasses. Here it is that of Synset.path: a class
belongs to the superclasses on its longest path from the root. So all its classes are a kind of a superclass, but a
class that is a kind of two of them is in one alone.
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
        names: the superclasses' names, no two alike, in the order of their labels.
        superclasses: the wnid of each; in a published task the id in its authors' tree ("dummy9" is not WordNet's).
        source: class indices, int64, of each superclass.
        target: likewise, none of them in ``source``; empty for a task that is not split.
        wnids: of all classes of the hierarchy, in class order.
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
        """From the hierarchy's classes to the superclasses, by the classes of one side; all others are dropped.

        Raises:
            InputError: another side, or the target of a task that is not split.
        """
        if side not in ("source", "target"):
            raise InputError(f"side must be 'source' or 'target', not {side!r}")
        members = self.source if side == "source" else self.target
        if not members:
            raise InputError("the task is not split, so it has no target: see subpopulations")
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
    """Disjoint superclasses of a hierarchy's classes, not split: all their classes are the source.

    Args:
        size: the fewest classes a superclass may have. Given alone, superclasses are the lowest synsets that have so
            many, none of them above another.
        depth: superclasses are the synsets so many edges below the root in the tree (``Synset.depth[1]``).
        count: exactly so many superclasses. They leave out as few classes as any that many can; of all such choices
            they are the most even, the sum of their squared sizes is least. Of synsets with the same classes it
            is the lowest.
        under: only what is below this synset; None for all.
        balanced: every superclass keeps as many classes as the smallest has, drawn at random by ``seed``.

    Returns:
        a Task, superclasses in the order of their wnids, classes ascending.

    Raises:
        UnknownSynsetError: no synset goes by ``under``.
        InputError: none of the three rules, or depth and count both; a number that is not positive; no such
            superclasses.
    """
    rules = {"size": size, "depth": depth, "count": count}
    if all(value is None for value in rules.values()) or (depth is not None and count is not None):
        raise InputError("superclasses are chosen by size, by depth or by count; size may go with either of the others")
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
        enough[tree.parent[enough & (tree.parent >= 0)]] = False  # and so up: all above have enough too
        chosen = np.flatnonzero(enough)
    if not chosen.size:
        wanted = ", ".join(f"{rule} {value}" for rule, value in rules.items() if value is not None)
        raise InputError(f"no superclasses of {wanted} among {int((paths >= 0).any(axis=1).sum()):,} classes")
    label_of_node = np.full(len(tree) + 1, -1)
    label_of_node[chosen] = np.arange(len(chosen))
    of_class = label_of_node[paths].max(axis=1, initial=-1)  # where a path ends is -1, the last node's place
    members = [np.flatnonzero(of_class == label) for label in range(len(chosen))]
    if balanced:
        smallest, rng = min(map(len, members)), random.Random(seed)
        members = [np.array(sorted(rng.sample(classes.tolist(), smallest)), np.int64) for classes in members]
    synsets = h.synsets(chosen)
    return Task(tuple(unique_names(synsets)), tuple(s.wnid for s in synsets), tuple(members), (), tuple(h.wnids))


def subpopulations(h: Hierarchy, task: Task, kind: Kind = "rand", seed: int = 0) -> Task:
    """The task with every superclass's classes, source and target together, split anew into halves.

    An odd class goes to the source. The halves are those of an order of the classes:

    - ``"rand"``: a random one.
    - ``"good"``: the tree's, from left to right, dealt out in turn: what is near in the tree is on both sides, so the
      target is as like the source as can be.
    - ``"bad"``: the tree's, cut in the middle: whole subtrees are on either side, so the target is as far from the
      source as can be.

    Args:
        h: the hierarchy of the task's classes, for its tree; children stand in a random order.
        seed: of all that is random.

    Raises:
        InputError: another kind, another hierarchy, or a superclass of a single class.
    """
    if kind not in KINDS:
        raise InputError(f"kind must be one of {', '.join(map(repr, KINDS))}, not {kind!r}")
    if list(task.wnids) != h.wnids:
        raise InputError(f"the task is over {len(task.wnids):,} other classes than {h!r}")
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
    """A published task of BREEDS over ILSVRC2012's classes, exactly as its authors' code makes it.

    They are tables (data/breeds.json), for the authors' tree is WordNet's edited by hand: some of its nodes are not
    WordNet's, and the others do not have the classes that they have in WordNet.

    Args:
        name: ``"entity13"``, ``"entity30"``, ``"living17"`` or ``"nonliving26"``.
        kind: None for the task that is not split, or how it is split into source and target.

    Returns:
        a Task; superclasses and classes in the published order.

    Raises:
        InputError: an unknown name or kind.
    """
    if name not in _published():
        raise InputError(f"no task {name!r} in BREEDS: there are {', '.join(map(repr, _published()))}")
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
    """The tree's paths, [classes, longest], with all but what is at or below ``under`` turned into -1."""
    if under is None:
        return tree.paths
    top = h[under].node
    kept = (tree.paths == top).any(axis=1, keepdims=True) & (tree.depth[tree.paths] >= tree.depth[top])
    return np.where(kept, tree.paths, -1)


def _even_cut(tree: Tree, sizes: IntArray, least: int, count: int) -> IntArray:
    """The nodes, none above another, that :func:`superclasses` promises for ``count``, ascending.

    By dynamic programming from the leaves up: for every node and every number the least cost of so many superclasses
    at or below it. A superclass costs its size squared, a class left out more than all superclasses could.

    Args:
        sizes: int64 [nodes]: the classes at or below each node; nodes that have none are left alone.
    """
    nodes = np.flatnonzero(sizes)
    children: dict[int, list[int]] = {node: [] for node in [-1, *nodes.tolist()]}
    for node in nodes.tolist():
        above = int(tree.parent[node])
        children[above if above in children else -1].append(node)
    total = int(sizes[children[-1]].sum())
    cost: dict[int, IntArray] = {}  # by number of superclasses at or below the node
    shares: dict[int, list[IntArray]] = {}  # by number: how many of them each child gets, given those before it
    itself: set[int] = set()  # where one superclass is best had by the node itself
    for node in [*nodes[np.argsort(-tree.depth[nodes], kind="stable")].tolist(), -1]:
        of_its_own = int(sizes[node] - sizes[children[node]].sum()) if node >= 0 else 0  # it may itself be a class
        best = np.array([of_its_own * (total**2 + 1), _NO_CUT])
        shares[node] = []
        for child in children[node]:
            best, share = _merged(best, cost.pop(child), count)
            shares[node].append(share)
        if node >= 0 and sizes[node] >= least and sizes[node] ** 2 < best[1]:
            best[1] = sizes[node] ** 2
            itself.add(node)
        cost[node] = best
    if count >= len(cost[-1]) or cost[-1][count] >= _NO_CUT:
        raise InputError(f"{total:,} classes cannot be cut into {count:,} superclasses of {least:,} or more")
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
    """For every k up to ``most``, the least of ``a[k - i] + b[i]``, and its i."""
    length = min(len(a) + len(b) - 1, most + 1)
    padded = np.full(length + len(b), _NO_CUT)
    padded[len(b) : len(b) + min(len(a), length)] = a[:length]
    i = np.arange(len(b))
    sums = np.minimum(padded[len(b) + np.arange(length)[:, None] - i] + b, _NO_CUT)  # [k, i]
    share = sums.argmin(axis=1)
    return sums[np.arange(length), share], share
