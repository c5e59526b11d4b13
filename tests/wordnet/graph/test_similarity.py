"""Relations of pairs, compared with NLTK, with plain definitions on random graphs, and with the class matrices."""

from __future__ import annotations

import itertools
import pickle
import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool.wordnet import Hierarchy, InputError, Synset, UnknownSynsetError
from imgtool.wordnet.graph.dag import Dag

pytestmark = pytest.mark.numeric

KINDS = ("lca_height", "lca_depth", "distance", "path", "wup")


@pytest.fixture(scope="module")
def pairs(h: Hierarchy, full: Hierarchy) -> tuple[list[Synset], list[Synset]]:
    """3,000 pairs: any nouns, ImageNet-1k's synsets, and synsets with their ancestors and themselves."""
    draw = random.Random(0)
    everything, here = list(full), [full[synset] for synset in h]
    found = [(draw.choice(everything), draw.choice(everything)) for _ in range(1200)]
    found += [(draw.choice(here), draw.choice(here)) for _ in range(1200)]
    found += [(s, draw.choice([s, *s.ancestors()])) for s in draw.sample(everything, 300)]
    found += [(draw.choice([s, *s.ancestors()]), s) for s in draw.sample(here, 300)]
    a, b = zip(*found, strict=True)
    return list(a), list(b)


def test_nltk_knows_the_same(full: Hierarchy, pairs: tuple[list[Synset], list[Synset]], nltk_wordnet: Any) -> None:
    a, b = pairs
    theirs_a, theirs_b = ([nltk_wordnet.synset_from_pos_and_offset("n", int(s.wnid[1:])) for s in x] for x in pairs)
    both = list(zip(theirs_a, theirs_b, strict=True))
    assert full.distance(a, b).tolist() == [x.shortest_path_distance(y) for x, y in both]
    assert full.path(a, b).tolist() == [x.path_similarity(y) for x, y in both]
    assert full.wup(a, b).tolist() == [x.wup_similarity(y) for x, y in both]
    for synset, (x, y) in zip(full.synsets(full.lca(a, b)), both, strict=True):
        assert synset.name in {s.name() for s in x.lowest_common_hypernyms(y)}
    assert full.is_a(a, b).tolist() == [y in x.common_hypernyms(x) for x, y in both]


@st.composite
def rooted(draw: st.DrawFn) -> list[list[int]]:
    """A list of parents for every node. There is one root. The nodes are not in topological order."""
    n = draw(st.integers(1, 9))
    order = draw(st.permutations(range(n)))
    parents: list[list[int]] = [[] for _ in range(n)]
    for i, node in enumerate(order[1:], 1):
        parents[node] = draw(st.lists(st.sampled_from(order[:i]), unique=True, min_size=1, max_size=3))
    return parents


class Small(Hierarchy):
    """A hierarchy with a random graph. Its nodes have the names of the first rows of the noun tables."""

    def __init__(self, parents: list[list[int]], classes: list[int]) -> None:
        super().__init__(None)
        indptr = np.cumsum([0] + [len(above) for above in parents])
        self.dag = Dag(indptr, np.array([node for above in parents for node in above], np.int32))
        self.rows = np.arange(len(parents), dtype=np.int32)
        self.class_nodes = np.array(classes, np.int64)
        self.class_of_node = np.full(len(parents), -1)
        self.class_of_node[classes] = np.arange(len(classes))


def ways(parents: list[list[int]], node: int) -> dict[int, set[int]]:
    """The lengths of all paths up, by the node where they end."""
    found = {node: {0}}
    for parent in parents[node]:
        for above, lengths in ways(parents, parent).items():
            found.setdefault(above, set()).update(length + 1 for length in lengths)
    return found


@given(rooted(), st.data())
def test_definitions(parents: list[list[int]], data: st.DataObject) -> None:
    n = len(parents)
    h = Small(parents, data.draw(st.lists(st.integers(0, n - 1), unique=True, min_size=1).map(sorted)))
    up = [ways(parents, node) for node in range(n)]
    root = next(node for node in range(n) if not parents[node])
    depth = [max(up[node][root]) for node in range(n)]
    height = [max(max(up[low].get(node, {0})) for low in range(n)) for node in range(n)]
    assert h.heights.tolist() == height and h.depths[1].tolist() == depth
    grid = np.array(list(itertools.product(range(n), range(n))))
    a, b = h.synsets(grid[:, 0]), h.synsets(grid[:, 1])
    common = [sorted(set(up[x]) & set(up[y])) for x, y in grid]
    assert h.lca(a, b).tolist() == [min(c, key=lambda s: (-depth[s], height[s], s)) for c in common]
    assert h.lca(a, b, "height").tolist() == [min(c, key=lambda s: (height[s], -depth[s], s)) for c in common]
    edges = [min(min(up[x][s]) + min(up[y][s]) for s in c) for (x, y), c in zip(grid, common, strict=True)]
    assert h.distance(a, b).tolist() == edges
    assert h.is_a(a, b).tolist() == [y in up[x] for x, y in grid]
    check_matrices(h, np.arange(h.num_classes))


def check_matrices(h: Hierarchy, some: npt.NDArray[np.int64]) -> None:
    """The matrices of some classes have the values that the relations have for the pairs."""
    a, b = some[:, None], np.arange(h.num_classes)
    low, deep = h.lca(a, b, "height"), h.lca(a, b, "depth")
    assert (h.lca_matrix("height")[some] == low).all() and (h.lca_matrix("depth")[some] == deep).all()
    expected = [h.heights[low], h.depths[1][deep], h.distance(a, b), h.path(a, b), h.wup(a, b)]
    for kind, values in zip(KINDS, expected, strict=True):
        matrix = h.class_matrix(kind)
        assert matrix.dtype == (np.int16 if values.dtype.kind == "i" else np.float32)
        assert (matrix[some] == values.astype(matrix.dtype)).all(), kind
        assert matrix is h.class_matrix(kind) and not matrix.flags.writeable
        assert kind == "wup" or (matrix == matrix.T).all()
    nodes = h.synsets(range(len(h)))
    assert (h.ancestor_matrix()[some] == h.is_a(a, nodes)).all() and h.ancestor_matrix().dtype == np.bool_


def test_matrices_of_in1k(h: Hierarchy) -> None:
    check_matrices(h, np.random.default_rng(0).choice(1000, 100, replace=False))
    assert (np.diag(h.class_matrix("lca_height")) == 0).all() and (np.diag(h.class_matrix("path")) == 1).all()


def test_matrices_in_blocks(h: Hierarchy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgtool.wordnet.graph.similarity.COLUMNS_AT_ONCE", 300)
    monkeypatch.setattr("imgtool.wordnet.graph.similarity.PAIRS_AT_ONCE", 999)
    blocks = pickle.loads(pickle.dumps(h))
    for kind in KINDS:
        assert blocks.class_matrix(kind) is not h.class_matrix(kind)
        assert (blocks.class_matrix(kind) == h.class_matrix(kind)).all()
    classes = np.arange(1000)
    assert (blocks.lca(classes, classes[::-1]) == h.lca(classes, classes[::-1])).all()


def test_the_two_conventions_differ(h: Hierarchy) -> None:
    low, deep = h.lca_matrix("height"), h.lca_matrix("depth")
    assert (low != deep).sum() == 1208
    # With the depth on the *shortest* path, and the last wnid among equally deep ones, 16,950 pairs would agree.
    order = np.lexsort((-np.arange(len(h)), -h.depths[0]))
    shared = h.ancestor_matrix()[:, order]
    shortest = np.stack([order[(shared & mine).argmax(1)] for mine in shared])
    assert (shortest != low).sum() == 16_950


def test_a_pair(h: Hierarchy) -> None:
    assert h.lca("dog.n.01", "cat.n.01") == h["carnivore.n.01"]
    assert h.lca(0, 0).class_index == 0
    assert (h.distance("dog.n.01", "cat.n.01"), h.path("dog.n.01", "cat.n.01")) == (4, 0.2)
    assert type(h.distance(0, 1)) is int and type(h.wup(0, 1)) is float and h.is_a(0, "fish.n.01") is True


def test_shapes(h: Hierarchy) -> None:
    a = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert h.lca(a, "dog.n.01").shape == h.path("dog.n.01", a).shape == (2, 3)
    assert h.wup(a[:, :1], [0, "dog.n.01", h["cat.n.01"]]).shape == (2, 3)
    assert h.is_a(np.arange(1000), "dog.n.01").sum() == 118
    assert h.is_a([207, "cat.n.01"], ["dog.n.01", "feline.n.01"]).tolist() == [True, True]
    for relation in (h.lca, h.distance, h.path, h.wup, h.is_a):
        assert relation([], []).shape == relation(0, []).shape == (0,)  # type: ignore[operator]
    assert [s.name for s in h.synsets(h.nodes([["dog.n.01"], [0]]))] == ["dog.n.01", "tench.n.01"]


def test_leaves(h: Hierarchy, full: Hierarchy) -> None:
    assert all(h[node].height == 0 for node in h.synsets(h.leaves))
    assert h.leaves.tolist() == sorted(s.node for s in h["entity.n.01"].leaves())
    assert (h.class_of_node[h.leaves] >= 0).all()
    assert sorted(s.class_index for s in h["dog.n.01"].leaves() if s.class_index) == h["dog.n.01"].classes.tolist()
    assert h["tench.n.01"].leaves() == [h[0]] and h["tench.n.01"].height == 0
    assert h["dog.n.01"].height == h.heights[h["dog.n.01"].node] == 5
    assert len(full.leaves) == sum(not (s.children or s.instances) for s in full)


def test_wup_has_nltks_quirks(full: Hierarchy) -> None:
    """A synset that a short path leads to may have an ancestor with a longer shortest path."""
    everything = list(full)
    to_itself = full.wup(everything, everything)
    assert (to_itself <= 1).all() and 0 < (to_itself < 1).mean() < 0.03


def test_wrong_arguments(h: Hierarchy, full: Hierarchy) -> None:
    with pytest.raises(InputError, match=r"'depth' or 'height'.*'deepest'"):
        h.lca(0, 1, by="deepest")  # type: ignore[call-overload]
    with pytest.raises(InputError, match=r"'ancestors'.*'lca_height'"):
        h.ancestor_matrix()
        h.class_matrix("ancestors")
    for matrix in (full.ancestor_matrix, full.lca_matrix, lambda: full.class_matrix("path")):
        with pytest.raises(InputError, match="no classes"):
            matrix()
    with pytest.raises(UnknownSynsetError, match="no class 1000: class indices go from 0 to 999"):
        h.path(np.array([[0, 1000]]), 0)
    with pytest.raises(UnknownSynsetError, match="no class -1"):
        h.nodes(np.array([-1]))
    with pytest.raises(UnknownSynsetError, match=r"nearest: dog\.n\.01"):
        h.is_a(["dgo.n.01"], "dog.n.01")
    with pytest.raises(UnknownSynsetError, match="a key is"):
        h.nodes(np.array([0.5]))


@given(rooted(), st.data())
def test_walks_begin_with_where_they_start(parents: list[list[int]], data: st.DataObject) -> None:
    """`dag.up` and `dag.down` return every node once, the start first: `ancestors` and `descendants` rely on it."""
    n = len(parents)
    start = data.draw(st.lists(st.integers(0, n - 1), unique=True, min_size=1).map(sorted))
    dag = Small(parents, list(range(n))).dag
    for walk in (dag.up, dag.down):
        reached = walk(start).tolist()
        assert sorted(reached[: len(start)]) == start
        assert len(set(reached)) == len(reached)


def test_ancestors_and_descendants_as_nodes(h: Hierarchy) -> None:
    for key in ("dog.n.01", "entity.n.01", 207):
        assert [s.node for s in h[key].ancestors()] == h.ancestors(key).tolist()
        assert [s.node for s in h[key].descendants()] == h.descendants(key).tolist()
    both = set(h.descendants("dog.n.01")) | set(h.descendants("cat.n.01"))
    assert set(h.descendants(["dog.n.01", "cat.n.01"])) == both
    assert set(h.ancestors(np.array([207, 281]))) == set(h.ancestors(207)) | set(h.ancestors(281))
