"""Superclass tasks: the published ones equal the publication, and ours follow their definitions."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool import wordnet
from imgtool.wordnet import Hierarchy, InputError, UnknownSynsetError
from imgtool.wordnet.tasks.splits import KINDS, Task, _even_cut, breeds, subpopulations, superclasses
from imgtool.wordnet.tasks.trees import Tree

pytestmark = pytest.mark.numeric

Fact = Callable[[str], str]
H = wordnet.load()


def lists(members: tuple[np.ndarray, ...]) -> list[list[int]]:
    return [classes.tolist() for classes in members]


@pytest.mark.parametrize("name", ["entity13", "entity30", "living17", "nonliving26"])
@pytest.mark.parametrize("kind", [None, *KINDS])
def test_breeds(name: str, kind: Any, fact: Fact, h: Hierarchy) -> None:
    published = json.loads(fact("breeds_golden.json"))[f"make_{name}"][str(kind)]
    task = breeds(name, kind)
    assert lists(task.source) == published["source"] and lists(task.target) == published["target"]
    assert list(task.superclasses) == published["superclasses"]
    labels = [published["labels"][str(label)] for label in range(len(task))]
    assert all(label.startswith(name) for name, label in zip(task.names, labels, strict=True))
    assert len(set(task.names)) == len(task) == int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))
    assert task.wnids == tuple(h.wnids)
    for side, members in (("source", task.source), ("target", task.target)):
        for label, classes in enumerate(members):
            of_class = task.labelmap(side).of_class  # type: ignore[arg-type]
            assert np.flatnonzero(of_class == label).tolist() == sorted(classes.tolist())


def test_breeds_is_not_in_wordnet(h: Hierarchy) -> None:
    """The reason for the tables: nodes that WordNet lacks, and classes not under their superclass in WordNet."""
    task = breeds("entity13")
    assert task.superclasses[0] == "dummy32"
    under = {wnid: set(h.classes(under=wnid).tolist()) for wnid in task.superclasses if wnid in h}
    assert any(
        not set(classes.tolist()) <= under[wnid]
        for wnid, classes in zip(task.superclasses, task.source, strict=True)
        if wnid in under
    )


def test_unknown_tasks() -> None:
    with pytest.raises(InputError, match=r"'living13'.*'entity13'"):
        breeds("living13")
    with pytest.raises(InputError, match="kind must be None or one of 'rand'"):
        breeds("living17", "worse")  # type: ignore[arg-type]


def check(h: Hierarchy, task: Task) -> None:
    """Disjoint, every class a kind of its superclass, names unique."""
    together = [index for classes in task.source for index in classes.tolist()]
    assert len(together) == len(set(together))
    assert len(set(task.names)) == len(task)
    for wnid, classes in zip(task.superclasses, task.source, strict=True):
        assert classes.dtype == np.int64 and (np.diff(classes) > 0).all() and len(classes)
        assert set(classes.tolist()) <= set(h.classes(under=wnid).tolist())
        for index in classes.tolist():
            assert h[wnid] in h[index].path


def test_by_size(h: Hierarchy) -> None:
    task = superclasses(h, size=50)
    check(h, task)
    assert min(map(len, task.source)) >= 50
    for wnid, classes in zip(task.superclasses, task.source, strict=True):
        below = [sum(child in h[index].path for index in classes.tolist()) for child in h[wnid].children]
        assert max(below) < 50  # so the superclass is the lowest
    assert "bird" in task.names and "animal" not in task.names


def test_by_depth(h: Hierarchy) -> None:
    task = superclasses(h, depth=8)
    check(h, task)
    assert {h[wnid].depth[1] for wnid in task.superclasses} == {8}
    assert sum(map(len, task.source)) == sum(h[index].depth[1] >= 8 for index in range(1000))
    large = superclasses(h, depth=8, size=10)
    assert set(large.names) == {name for name, classes in zip(task.names, task.source, strict=True) if len(classes) > 9}
    assert superclasses(h, depth=0).names == ("entity",)


def test_by_count(h: Hierarchy) -> None:
    for count in (1, 2, 20, 1000):
        task = superclasses(h, count=count)
        check(h, task)
        assert len(task) == count
    assert sum(map(len, superclasses(h, count=20).source)) == 1000
    task = superclasses(h, count=13, size=20)
    check(h, task)
    assert len(task) == 13 and min(map(len, task.source)) >= 20


def test_under(h: Hierarchy) -> None:
    for rule in ({"count": 3}, {"size": 10}, {"depth": 15}):
        task = superclasses(h, **rule, under="dog.n.01")  # type: ignore[arg-type]
        check(h, task)
        assert set(np.concatenate(task.source).tolist()) <= set(h.classes(under="dog.n.01").tolist())
    assert superclasses(h, count=1, under="dog.n.01").names == ("dog",)


def test_balanced(h: Hierarchy) -> None:
    task = superclasses(h, depth=8, size=10, balanced=True, seed=3)
    check(h, task)
    assert {len(classes) for classes in task.source} == {10}
    assert lists(superclasses(h, depth=8, size=10, balanced=True, seed=3).source) == lists(task.source)
    assert lists(superclasses(h, depth=8, size=10, balanced=True, seed=4).source) != lists(task.source)


@settings(max_examples=30)
@given(st.sets(st.sampled_from(H.wnids), min_size=1, max_size=30), st.data())
def test_any_hierarchy(wnids: set[str], data: st.DataObject) -> None:
    h = wordnet.load(wnids)
    rule = data.draw(st.sampled_from(["size", "depth", "count"]))
    number = data.draw(st.integers(1, 5))
    try:
        check(h, superclasses(h, **{rule: number}))  # type: ignore[arg-type]
    except InputError:
        assert number > len(wnids)  # otherwise the root or the classes themselves would satisfy the rule
        assert rule != "depth"


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """One or several trees, whose classes are the leaves and perhaps some inner nodes."""
    n = draw(st.integers(1, 9))
    parent = [draw(st.integers(-1, node - 1)) for node in range(n)]
    classes = [node for node in range(n) if node not in parent or draw(st.booleans())]
    return Tree(np.array(parent), np.array(classes))


@given(trees(), st.integers(1, 3), st.integers(1, 5))
def test_even_cut_is_the_best_of_all(tree: Tree, least: int, count: int) -> None:
    member = tree.membership()
    sizes = member.sum(axis=0)
    above = [set(path.tolist()) - {-1} for path in tree.paths]
    ancestors = [set() for _ in range(len(tree))]  # type: list[set[int]]
    for node in range(len(tree)):
        up = int(tree.parent[node])
        ancestors[node] = {up} | ancestors[up] if up >= 0 else set()
    best = None
    for nodes in combinations([node for node in range(len(tree)) if sizes[node] >= least], count):
        if not any(a in ancestors[b] for a in nodes for b in nodes):
            left_out = sum(not path & set(nodes) for path in above)
            cost = (left_out, sum(int(sizes[node]) ** 2 for node in nodes))
            best = cost if best is None else min(best, cost)
    if best is None:
        with pytest.raises(InputError, match="cannot be divided"):
            _even_cut(tree, sizes, least, count)
        return
    chosen = _even_cut(tree, sizes, least, count).tolist()
    assert len(chosen) == count and not any(a in ancestors[b] for a in chosen for b in chosen)
    assert all(sizes[node] >= least for node in chosen)
    assert (sum(not path & set(chosen) for path in above), sum(int(sizes[node]) ** 2 for node in chosen)) == best


@pytest.mark.parametrize(
    ("rules", "what"),
    [
        ({}, "give size, depth or count"),
        ({"depth": 3, "count": 2}, "give size, depth or count"),
        ({"size": 0}, "size must be positive, not 0"),
        ({"count": 0}, "count must be positive"),
        ({"depth": 99}, "no superclasses with depth 99 among 1,000 classes"),
        ({"size": 1001}, "no superclasses with size 1001"),
        ({"count": 1001}, "1,000 classes cannot be divided into 1,001"),
        ({"count": 30, "size": 100}, "cannot be divided into 30 superclasses of at least 100"),
    ],
)
def test_impossible_rules(rules: dict[str, int], what: str, h: Hierarchy) -> None:
    with pytest.raises(InputError, match=what):
        superclasses(h, **rules)  # type: ignore[arg-type]
    with pytest.raises(UnknownSynsetError):
        superclasses(h, size=1, under="dgo.n.01")


@pytest.mark.parametrize("kind", KINDS)
def test_halves(kind: Any, h: Hierarchy) -> None:
    whole = superclasses(h, count=13, size=20)
    task = subpopulations(h, whole, kind, seed=5)
    assert (task.names, task.superclasses) == (whole.names, whole.superclasses)
    for before, source, target in zip(whole.source, task.source, task.target, strict=True):
        assert sorted([*source.tolist(), *target.tolist()]) == before.tolist()
        assert len(source) - len(target) in (0, 1)
    assert lists(subpopulations(h, whole, kind, seed=5).source) == lists(task.source)
    assert lists(subpopulations(h, whole, kind, seed=6).source) != lists(task.source)
    assert lists(subpopulations(h, task, kind, seed=5).source) != []  # a task that is split can be split again


def distance(h: Hierarchy, task: Task) -> float:
    """The mean height of the lowest common ancestor of each target class and its nearest source class."""
    height = h.class_matrix("lca_height")
    nearest = [height[target[:, None], source].min(axis=1) for source, target in zip(*sides(task), strict=True)]
    return float(np.concatenate(nearest).mean())


def sides(task: Task) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    return task.source, task.target


def test_good_is_near_and_bad_is_far(h: Hierarchy) -> None:
    """The same holds for the published tasks."""
    for whole in (superclasses(h, count=13, size=20), superclasses(h, depth=8, size=10)):
        by_kind: dict[str, list[float]] = {
            kind: [distance(h, subpopulations(h, whole, kind, seed)) for seed in range(5)]
            for kind in KINDS  # type: ignore[misc]
        }
        assert max(by_kind["good"]) < min(by_kind["rand"]) and max(by_kind["rand"]) < min(by_kind["bad"])
    for name in ("entity13", "living17"):
        good, rand, bad = (distance(h, breeds(name, kind)) for kind in ("good", "rand", "bad"))  # type: ignore[arg-type]
        assert good < rand < bad


def test_bad_keeps_subtrees_whole(h: Hierarchy) -> None:
    """At most one subtree at each level is on both sides."""
    task = subpopulations(h, superclasses(h, count=1, under="dog.n.01"), "bad", seed=1)
    source, target = ({h[index] for index in side.tolist()} for side in (task.source[0], task.target[0]))
    paths = {synset: synset.path for synset in source | target}
    for level in range(20):
        nodes = [{paths[s][level] for s in side if len(paths[s]) > level} for side in (source, target)]
        assert len(nodes[0] & nodes[1]) <= 1


def test_impossible_splits(h: Hierarchy) -> None:
    task = superclasses(h, count=20)
    with pytest.raises(InputError, match="a single class cannot be split: pillow, scoreboard"):
        subpopulations(h, task)
    with pytest.raises(InputError, match="kind must be one of"):
        subpopulations(h, task, "worse")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1,000 other classes"):
        subpopulations(wordnet.load(h.wnids[:9]), task)
    with pytest.raises(InputError, match="not split"):
        task.labelmap("target")
    with pytest.raises(InputError, match="side must be"):
        task.labelmap("both")  # type: ignore[arg-type]
    assert repr(task) == "<Task of 20 superclasses: 1,000 classes in the source, 0 in the target>"
