"""One parent for every synset, by policy."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool import wordnet
from imgtool.wordnet import Hierarchy, InputError, UnknownSynsetError
from imgtool.wordnet.tasks.trees import Tree, make_tree


@pytest.mark.parametrize("policy", ["longest", "first"])
def test_every_edge_is_the_hierarchys(full: Hierarchy, policy: str) -> None:
    tree = make_tree(full, policy)
    assert len(tree) == len(full) and tree.policy == policy
    for node in random.Random(0).sample(range(len(full)), 3000):
        above = full.dag.parents[full.dag.edges(node)].tolist()
        assert tree.parent[node] in above if above else tree.parent[node] == -1
        if policy == "first" and above:
            assert tree.parent[node] == above[0]


def test_longest_is_synset_path(h: Hierarchy) -> None:
    tree = make_tree(h)
    for index in range(h.num_classes):
        path = [node for node in tree.paths[index].tolist() if node >= 0]
        assert path[::-1] == [synset.node for synset in h[index].path]
        assert tree.depth[path[0]] == len(path) - 1 == h[index].depth[1]


def test_choices_are_reported(h: Hierarchy) -> None:
    choices = make_tree(h).choices
    assert len(choices) == 75  # the nodes of ImageNet-1k with several parents
    (dog,) = [choice for choice in choices if choice.synset == "dog.n.01"]
    assert (dog.kept, dog.dropped) == ("canine.n.02", ("domestic_animal.n.01",))
    for choice in choices:
        assert sorted([choice.kept, *choice.dropped]) == sorted(p.name for p in h[choice.synset].parents)


def test_explicit_edges(h: Hierarchy) -> None:
    tree = make_tree(h, {"dog.n.01": "domestic_animal.n.01"})
    plain = make_tree(h)
    changed = np.flatnonzero(tree.parent != plain.parent)
    assert changed.tolist() == [h["dog.n.01"].node] and tree.policy == "explicit"
    assert tree.parent[h["dog.n.01"].node] == h["domestic_animal.n.01"].node
    assert [c.kept for c in tree.choices if c.synset == "dog.n.01"] == ["domestic_animal.n.01"]
    with pytest.raises(InputError, match=r"cat\.n\.01 is not a parent of dog\.n\.01, whose parents are: canine"):
        make_tree(h, {"dog.n.01": "cat.n.01"})
    with pytest.raises(UnknownSynsetError, match=r"dog\.n\.01"):
        make_tree(h, {"dgo.n.01": "cat.n.01"})
    with pytest.raises(InputError, match="longest, first"):
        make_tree(h, "shortest")


@settings(max_examples=25)
@given(st.lists(st.integers(0, 82_114), min_size=1, max_size=40, unique=True), st.sampled_from(["longest", "first"]))
def test_a_tree_is_within_the_graph(rows: list[int], policy: str) -> None:
    tables = wordnet.load("full").tables
    h = wordnet.load([tables.wnid(row) for row in rows])  # a random graph, in which some classes are above others
    tree = make_tree(h, policy)
    below = tree.membership()
    for index in range(h.num_classes):
        above = set(np.flatnonzero(below[index]).tolist())
        assert above <= set(h.dag.up([int(h.class_nodes[index])]).tolist())
        assert above == {node for node in tree.paths[index].tolist() if node >= 0}
        assert tree.paths[index, 0] == h.class_nodes[index]
    assert (tree.parent < 0).sum() == 1
    assert len(tree.choices) == (np.diff(h.dag.indptr) > 1).sum()


def test_by_hand() -> None:
    tree = Tree(np.array([2, 2, -1, 1]), np.array([0, 3]))  # 2 above 0 and 1, 1 above 3
    assert tree.paths.tolist() == [[0, 2, -1], [3, 1, 2]]
    assert tree.depth.tolist() == [1, 1, 0, 2]
    assert tree.membership().tolist() == [[True, False, True, False], [False, True, True, True]]
    with pytest.raises(InputError, match="cycle"):
        Tree(np.array([1, 0]), np.array([0]))
    with pytest.raises(InputError, match=r"-1 \(none\) to 1"):
        Tree(np.array([2, -1]), np.array([0]))
    with pytest.raises(InputError, match="nodes 0 to 1"):
        Tree(np.array([-1, 0]), np.array([2]))
