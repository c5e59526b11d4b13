"""Comparison with NLTK's own reader on thousands of random synsets."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest

from imgtool.wordnet import Hierarchy, ImgtoolError, Synset, UnknownSynsetError


@pytest.fixture(scope="module")
def pairs(h: Hierarchy, full: Hierarchy, nltk_wordnet: Any) -> list[tuple[Synset, Any]]:
    """Pairs of our synset and NLTK's: 2,000 random nouns and all of ImageNet-1k's hierarchy."""
    chosen = random.Random(0).sample(list(full), 2000) + [full[synset] for synset in h]
    return [(s, nltk_wordnet.synset_from_pos_and_offset("n", int(s.wnid[1:]))) for s in chosen]


def names(synsets: Any) -> list[str]:
    return sorted(s.name if isinstance(s, Synset) else s.name() for s in synsets)


def test_words(pairs: list[tuple[Synset, Any]]) -> None:
    for ours, theirs in pairs:
        assert ours.name == theirs.name()
        assert [lemma.replace(" ", "_") for lemma in ours.lemmas] == theirs.lemma_names()
        assert ours.definition == theirs.definition()
        assert list(ours.examples) == theirs.examples()
        assert ours.lexname == theirs.lexname()


def test_neighbours(pairs: list[tuple[Synset, Any]]) -> None:
    for ours, theirs in pairs:
        assert names(ours.parents) == names(theirs.hypernyms())
        assert names(ours.children) == names(theirs.hyponyms())
        assert names(ours.instance_of) == names(theirs.instance_hypernyms())
        assert names(ours.instances) == names(theirs.instance_hyponyms())


def test_ancestors_and_depths(pairs: list[tuple[Synset, Any]]) -> None:
    for ours, theirs in pairs:
        assert names(ours.ancestors()) == names(set(theirs.common_hypernyms(theirs)) - {theirs})
        assert ours.depth == (theirs.min_depth(), theirs.max_depth())
        if not ours.instance_of:
            assert names(ours.ancestors()) == names(set(theirs.closure(lambda s: s.hypernyms())))


def test_descendants(pairs: list[tuple[Synset, Any]]) -> None:
    for ours, theirs in pairs[:1000]:
        below = set(theirs.closure(lambda s: s.hyponyms() + s.instance_hyponyms()))
        assert names(ours.descendants()) == names(below)


def test_paths(pairs: list[tuple[Synset, Any]]) -> None:
    for ours, theirs in pairs[:1000]:
        expected = sorted([s.name() for s in path] for path in theirs.hypernym_paths())
        assert sorted([s.name for s in path] for path in ours.paths()) == expected
        assert len(ours.path) == theirs.max_depth() + 1


def test_senses_and_their_order(full: Hierarchy, nltk_wordnet: Any) -> None:
    lemmas = random.Random(1).sample(sorted(nltk_wordnet.all_lemma_names("n")), 3000)
    for lemma in ["crane", "dog", ".22", "'hood", "a", *lemmas]:
        offsets = nltk_wordnet._lemma_pos_offset_map[lemma]["n"]
        assert [full.tables.offset[row] for row in full.tables.senses(lemma)] == offsets


def test_nltk_names_and_synsets_are_keys(
    h: Hierarchy, full: Hierarchy, pairs: list[tuple[Synset, Any]], nltk_wordnet: Any
) -> None:
    for ours, theirs in pairs[:500]:
        assert full[theirs] == full[theirs.name()] == ours
        for lemma in theirs.lemmas():  # NLTK accepts any of the lemmas in a name
            for number in range(1, 1 + len(full.tables.senses(lemma.name()))):
                name = f"{lemma.name().lower()}.n.{number:02d}"
                assert full[name].name == nltk_wordnet.synset(name).name()
    tench = nltk_wordnet.synset("tench.n.01")
    assert tench in h and h[tench].class_index == 0
    einstein = nltk_wordnet.synset("einstein.n.01")
    assert einstein not in h
    with pytest.raises(UnknownSynsetError, match="not among this hierarchy"):
        h[einstein]


def test_nltks_own_synsets(
    h: Hierarchy, pairs: list[tuple[Synset, Any]], nltk_wordnet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nltk.corpus.wordnet", nltk_wordnet)
    for ours, theirs in pairs[:500]:
        assert ours.nltk() == theirs and ours.hierarchy[ours.nltk()] == ours
    monkeypatch.setattr(nltk_wordnet, "synset_from_pos_and_offset", lambda pos, offset: pairs[0][1])
    with pytest.raises(ImgtoolError, match=r"not WordNet 3\.0"):
        h[0].nltk()


def test_no_nltk(h: Hierarchy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    with pytest.raises(ImgtoolError, match=r"pip install 'imgtool\[nltk\]'"):
        h[0].nltk()


def test_nltk_without_its_corpus(h: Hierarchy, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = pytest.importorskip("nltk.corpus")
    monkeypatch.setattr("nltk.data.path", [])
    monkeypatch.setattr(corpus, "wordnet", corpus.LazyCorpusLoader("wordnet", corpus.WordNetCorpusReader, None))
    with pytest.raises(ImgtoolError, match=r"nltk\.downloader wordnet"):
        h[0].nltk()


def test_exceptions(full: Hierarchy, nltk_wordnet: Any) -> None:
    assert {k: list(v) for k, v in full.tables.exceptions.items()} == dict(nltk_wordnet._exception_map["n"])
