"""Display names are unique, whatever the classes are."""

from __future__ import annotations

from collections.abc import Callable

from imgtool import wordnet
from imgtool.wordnet import Hierarchy
from imgtool.wordnet.graph.names import unique_names


def test_the_published_clashes(h: Hierarchy) -> None:
    assert h.name(0) == "tench"
    assert (h.name(134), h.name(517)) == ("crane (wading bird)", "crane (lifting device)")
    assert (h.name(264), h.name(474)) == ("Cardigan (corgi)", "cardigan (sweater)")
    assert (h.name(638), h.name(639)) == ("maillot (tights)", "maillot (swimsuit)")


def test_only_clashing_names_are_longer(h: Hierarchy) -> None:
    assert len({name.casefold() for name in h.names}) == 1000
    assert [index for index in range(1000) if h.name(index) != h[index].lemmas[0]] == [134, 264, 474, 517, 638, 639]


def test_imagenet22k(fact: Callable[[str], str]) -> None:
    h = wordnet.load(fact("imagenet22k_synsets.txt").split())
    assert len({name.casefold() for name in h.names}) == h.num_classes == 21_841


def test_names_that_need_the_nltk_name(full: Hierarchy) -> None:
    here, there = full["landing.n.03"], full["landing.n.04"]
    assert here.parents[0].lemmas[0] == there.parents[0].lemmas[0]
    assert unique_names([here, there]) == ["landing (landing.n.03)", "landing (landing.n.04)"]


def test_all_nouns(full: Hierarchy) -> None:
    assert len({name.casefold() for name in unique_names(list(full))}) == 82_115


def test_taken_names(full: Hierarchy) -> None:
    assert unique_names([full["tench.n.01"]], taken=["Tench"]) == ["tench (cyprinid)"]
    assert unique_names([full["tench.n.01"]], taken=["tench", "tench (cyprinid)"]) == ["tench (tench.n.01)"]
