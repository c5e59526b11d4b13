"""Drawings of the hierarchy: text, SVG, DOT."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool import wordnet
from imgtool.wordnet import Hierarchy, InputError, UnknownSynsetError
from imgtool.wordnet.graph.drawing import edges

SVG = "{http://www.w3.org/2000/svg}"
DOT_NODE = re.compile(r'  (n\d{8}) \[label="((?:[^"\\]|\\.)*)", fillcolor="#[0-9a-f]{6}"\];')
DOT_EDGE = re.compile(r"  (n\d{8}) -> (n\d{8});")


def test_text(h: Hierarchy) -> None:
    assert h.draw(under="cat.n.01", values={"tabby.n.01": 0.5, 282: 0.75, "lynx.n.02": 1.0}) == (
        "cat.n.01  0.75\n"
        "├── domestic_cat.n.01  0.625\n"
        "│   ├── tabby.n.01  281  0.5\n"
        "│   ├── tiger_cat.n.02  282  0.75\n"
        "│   ├── persian_cat.n.01  283\n"
        "│   ├── siamese_cat.n.01  284\n"
        "│   └── egyptian_cat.n.01  285\n"
        "└── wildcat.n.03  1\n"
        "    ├── cougar.n.01  286\n"
        "    └── lynx.n.02  287  1\n"
    )
    assert h.draw(under=281) == "tabby.n.01  281\n"
    assert h.draw("cat.n.01", max_depth=1) == "cat.n.01\n├── domestic_cat.n.01\n└── wildcat.n.03\n"
    assert h.draw("cat.n.01", max_depth=0) == "cat.n.01\n"


def test_several_parents_in_text(h: Hierarchy) -> None:
    lines = h.draw("animal.n.01").splitlines()
    dogs = [line for line in lines if re.search(r"\bdog\.n\.01", line)]
    assert len(dogs) == 2 and sum("↑ dog.n.01" in line for line in dogs) == 1  # canine, domestic animal
    assert sum("toy_poodle" in line for line in lines) == 1  # descendants appear once


def test_means_count_every_class_once(h: Hierarchy) -> None:
    values = np.random.default_rng(0).random(1000)
    values[h.classes(under="cat.n.01")] = np.nan
    for line in h.draw("animal.n.01", values=values).splitlines():
        if "↑" in line:
            continue
        name, *parts = line.lstrip("│├└─ ").split("  ")
        index, mine = h[name].class_index, values[h[name].classes]
        expected = [] if index is None else [str(index)]
        assert parts == expected + ([] if np.isnan(mine).all() else [f"{np.nanmean(mine):.4g}"])


@settings(max_examples=40)
@given(st.lists(st.integers(0, 82_114), min_size=1, max_size=25, unique=True), st.one_of(st.none(), st.integers(0, 12)))
def test_nodes_once_and_all_edges(rows: list[int], max_depth: int | None) -> None:
    h = wordnet.load([wordnet.load("full").tables.wnid(row) for row in rows])
    low = h.dag.depths[0]  # below the root, the length of the shortest path is the depth
    nodes = [s for s in h if max_depth is None or low[s.node] <= max_depth]
    expected = {
        (parent.wnid, s.wnid)
        for s in h
        for parent in s.parents + s.instance_of
        if max_depth is None or low[parent.node] < max_depth
    }
    values = np.linspace(0, 1, h.num_classes)

    dot = h.draw("entity.n.01", values=values, format="dot", max_depth=max_depth)
    assert sorted(m[1] for m in DOT_NODE.finditer(dot)) == sorted(s.wnid for s in nodes)
    pairs = [(m[1], m[2]) for m in DOT_EDGE.finditer(dot)]
    assert len(pairs) == len(expected) and set(pairs) == expected
    others = [line for line in dot.splitlines() if not DOT_NODE.fullmatch(line) and not DOT_EDGE.fullmatch(line)]
    assert len(others) == 4 and others[0] == "digraph hierarchy {" and others[-1] == "}"
    assert {(a.wnid, b.wnid) for a, b in edges(h, "entity.n.01", max_depth)} == expected

    svg = ElementTree.fromstring(h.draw("entity.n.01", values=values, format="svg", max_depth=max_depth))
    texts = [element.text or "" for element in svg.iter(f"{SVG}text")]
    assert sorted(text.split("  ")[0] for text in texts) == sorted(s.name for s in nodes)
    assert len([path for path in svg.iter(f"{SVG}path") if path.get("class") == "edge"]) == len(expected)
    width, height = float(svg.get("width", 0)), float(svg.get("height", 0))
    for circle in svg.iter(f"{SVG}circle"):
        assert 0 < float(circle.get("cx", -1)) < width and 0 < float(circle.get("cy", -1)) < height

    text = h.draw("entity.n.01", max_depth=max_depth).splitlines()
    assert len(text) == len(expected) + 1 and sum("↑" not in line for line in text) == len(nodes)


def test_escapes(full: Hierarchy) -> None:
    """Names and glosses have ampersands, quotes and less-than signs somewhere in WordNet."""
    at_and_t = full.find("AT&T")
    awkward = [s for s in full if set("&<>\"'") & set(s.name)][:30] + at_and_t
    assert len(awkward) > 5
    for s in awkward:
        svg = ElementTree.fromstring(full.draw(s, format="svg", max_depth=0))
        assert next(svg.iter(f"{SVG}text")).text == s.name
        title = [element.text for element in svg.iter(f"{SVG}title")][1]
        assert title == f"{s.wnid}: {s.gloss}"
        (node,) = DOT_NODE.finditer(full.draw(s, format="dot", max_depth=0))
        assert re.sub(r"\\(.)", r"\1", node[2]) == s.name


def test_svg_is_self_contained(h: Hierarchy) -> None:
    svg = h.draw("dog.n.01", format="svg")
    assert svg.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert "href" not in svg and "url(" not in svg and "<script" not in svg


def test_wrong_input(h: Hierarchy) -> None:
    with pytest.raises(InputError, match="'text', 'svg', 'dot'"):
        h.draw("cat.n.01", format="png")
    with pytest.raises(UnknownSynsetError):
        h.draw("cta.n.01")
    with pytest.raises(InputError, match=r"values must .*\[1000\]"):
        h.draw("cat.n.01", values=[1.0, 2.0])
    with pytest.raises(InputError, match=r"cat\.n\.01 is not a class"):
        h.draw("cat.n.01", values={"cat.n.01": 1.0})
    with pytest.raises(InputError, match="max_depth"):
        h.draw("cat.n.01", max_depth=-1)
