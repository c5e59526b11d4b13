"""Base forms of inflected words, compared with NLTK's morphy and synsets."""

from __future__ import annotations

import random
from typing import Any

import pytest

from imgtool.wordnet import Hierarchy
from imgtool.wordnet.tables.morphology import DETACHMENT_RULES, base_forms


def test_rules_are_nltks(nltk_wordnet: Any) -> None:
    assert sorted(DETACHMENT_RULES) == sorted(nltk_wordnet.MORPHOLOGICAL_SUBSTITUTIONS["n"])


@pytest.fixture(scope="module")
def words(nltk_wordnet: Any) -> list[str]:
    """All irregular plurals; 3,000 nouns, unchanged and with each plural ending; and non-words."""
    lemmas = random.Random(0).sample(sorted(nltk_wordnet.all_lemma_names("n")), 3000)
    inflected = [
        lemma.removesuffix(new) + old for lemma in lemmas for old, new in DETACHMENT_RULES if lemma.endswith(new)
    ]
    return [*lemmas, *inflected, *nltk_wordnet._exception_map["n"], "s", "ss", "ies", "men", "xyzzys", "glasses"]


def test_nltk_knows_the_same(full: Hierarchy, words: list[str], nltk_wordnet: Any) -> None:
    assert len(words) > 8000
    for word in words:
        assert base_forms(word) == nltk_wordnet._morphy(word, "n"), word
        theirs = dict.fromkeys(s.offset() for s in nltk_wordnet.synsets(word, "n"))
        assert [int(s.wnid[1:]) for s in full.find(word)] == list(theirs), word


def test_find(h: Hierarchy) -> None:
    assert [s.name for s in h.find("poodles")] == ["poodle.n.01"]
    assert h.find("Great White Sharks") == h.find("great_white_shark") == [h[2]]
    assert [s.name for s in h.find("wolves")] == ["wolf.n.01"] and [s.name for s in h.find("mice")] == ["mouse.n.04"]
    assert h.find("poodless") == h.find("") == []
