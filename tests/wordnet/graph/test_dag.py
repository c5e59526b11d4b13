"""Dag on random graphs, compared with plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool.wordnet.graph.dag import Dag, csr_positions

pytestmark = pytest.mark.numeric


@st.composite
def parent_lists(draw: st.DrawFn) -> list[list[int]]:
    """A list of parents for every node. The nodes are not in topological order."""
    n = draw(st.integers(1, 9))
    order = draw(st.permutations(range(n)))
    parents: list[list[int]] = [[] for _ in range(n)]
    for i, node in enumerate(order):
        parents[node] = draw(st.lists(st.sampled_from(order[:i]), unique=True, max_size=3)) if i else []
    return parents


def dag_of(parents: list[list[int]]) -> Dag:
    indptr = np.cumsum([0] + [len(above) for above in parents])
    return Dag(indptr, np.array([node for above in parents for node in above], np.int32))


def paths_of(parents: list[list[int]], node: int) -> list[tuple[int, ...]]:
    return [(*path, node) for above in parents[node] for path in paths_of(parents, above)] or [(node,)]


@given(parent_lists())
def test_paths_depths_and_ancestors(parents: list[list[int]]) -> None:
    dag = dag_of(parents)
    low, high = dag.depths
    for node in range(len(dag)):
        paths = paths_of(parents, node)
        assert list(dag.paths(node)) == paths
        assert (low[node], high[node]) == (min(map(len, paths)) - 1, max(map(len, paths)) - 1)
        assert dag.longest_path(node) in paths and len(dag.longest_path(node)) == high[node] + 1
        above = dag.up([node]).tolist()
        assert sorted(above) == sorted({other for path in paths for other in path})
        assert above[: 1 + len(parents[node])] == [node, *parents[node]]  # the parents' order is kept


@given(parent_lists())
def test_down_is_up_reversed(parents: list[list[int]]) -> None:
    dag = dag_of(parents)
    up = {(low, high) for low in range(len(dag)) for high in dag.up([low]).tolist()}
    down = {(low, high) for high in range(len(dag)) for low in dag.down([high]).tolist()}
    assert up == down


@given(parent_lists(), st.data())
def test_breadth_first(parents: list[list[int]], data: st.DataObject) -> None:
    starts = data.draw(st.lists(st.integers(0, len(parents) - 1), max_size=4))
    queue = list(dict.fromkeys(starts))
    for node in queue:
        queue += [parent for parent in parents[node] if parent not in queue]
    assert dag_of(parents).up(starts).tolist() == queue
    if len(starts) == 1:
        assert dag_of(parents).above(starts[0]) == queue


@given(parent_lists())
def test_edges_up_and_down(parents: list[list[int]]) -> None:
    dag = dag_of(parents)
    for node, above in enumerate(parents):
        assert dag.parents[dag.edges(node)].tolist() == above
        below = [child for child, its in enumerate(parents) if node in its]
        assert dag.child[dag.edges_down(node)].tolist() == below
        assert (dag.parents[dag.edges_down(node)] == node).all()


@given(parent_lists())
def test_closure_and_heights(parents: list[list[int]]) -> None:
    dag = dag_of(parents)
    indptr, ancestors, steps = dag.closure
    below = {node: 0 for node in range(len(dag))}
    for node in range(len(dag)):
        fewest: dict[int, int] = {}
        for path in paths_of(parents, node):
            for up, above in enumerate(reversed(path)):
                fewest[above] = min(up, fewest.get(above, up))
                below[above] = max(up, below[above])
        here = slice(indptr[node], indptr[node + 1])
        assert list(zip(ancestors[here].tolist(), steps[here].tolist(), strict=True)) == sorted(fewest.items())
        everyone = np.arange(len(dag))
        assert dag.steps_up(np.full(len(dag), node), everyone).tolist() == [fewest.get(x, -1) for x in everyone]
    assert dag.heights.tolist() == [below[node] for node in range(len(dag))]


@given(parent_lists(), st.data())
def test_common(parents: list[list[int]], data: st.DataObject) -> None:
    dag = dag_of(parents)
    nodes = st.integers(0, len(dag) - 1)
    pairs = data.draw(st.lists(st.tuples(nodes, nodes), max_size=5))
    a, b = np.array(pairs, np.int64).reshape(-1, 2).T
    expected = [
        (i, above, int(dag.steps_up(a[[i]], np.array([above]))[0] + dag.steps_up(b[[i]], np.array([above]))[0]))
        for i, (x, y) in enumerate(pairs)
        for above in sorted(set(dag.up([x]).tolist()) & set(dag.up([y]).tolist()))
    ]
    assert list(zip(*(column.tolist() for column in dag.common(a, b)), strict=True)) == expected


@given(parent_lists(), st.integers(0, 1), st.data())
def test_pass_down(parents: list[list[int]], step: int, data: st.DataObject) -> None:
    dag = dag_of(parents)
    table = np.array(data.draw(st.lists(st.integers(-9, 9), min_size=len(dag), max_size=len(dag))))[:, None]
    expected = [
        min(table[above, 0] + step * up for path in paths_of(parents, node) for up, above in enumerate(reversed(path)))
        for node in range(len(dag))
    ]
    dag.pass_down(table, step)
    assert table[:, 0].tolist() == expected


@given(st.lists(st.lists(st.integers(), max_size=4), min_size=1, max_size=6), st.data())
def test_csr_positions(lists: list[list[int]], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1)))
    values = np.array([value for values in lists for value in values], object)
    indptr = np.cumsum([0] + [len(values) for values in lists])
    expected = [value for row in rows for value in lists[row]]
    assert values[csr_positions(indptr, np.array(rows, np.int64))].tolist() == expected


def test_a_cycle_is_detected() -> None:
    with pytest.raises(ValueError, match="cycle"):
        dag_of([[1], [0]]).depths  # noqa: B018
    with pytest.raises(ValueError, match="cycle"):
        dag_of([[1], [0]]).heights  # noqa: B018
