"""h[key]: the keys that it takes, and the error messages for wrong keys."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool import wordnet
from imgtool.wordnet import Hierarchy, UnknownSynsetError


@pytest.mark.parametrize(
    "key",
    ["n02084071", "dog.n.01", "dog.n.1", "Dog.n.01", "domestic_dog.n.01", "domestic dog.n.01", "Canis familiaris"],
)
def test_one_synset_many_keys(h: Hierarchy, key: str) -> None:
    assert h[key].wnid == "n02084071" and key in h


def test_class_indices(h: Hierarchy) -> None:
    for index in (0, 207, 999):
        assert h[index].class_index == h[np.int64(index)].class_index == index
        assert h[index].wnid == h.wnids[index]


def test_synsets_of_another_hierarchy(h: Hierarchy, full: Hierarchy) -> None:
    assert h[full["dog.n.01"]].hierarchy is h
    assert full["einstein.n.01"] not in h


def test_every_synset_by_its_names(h: Hierarchy) -> None:
    for synset in h:
        assert h[synset] == h[synset.wnid] == h[synset.name] == synset
        assert all(synset in h.find(lemma) for lemma in synset.lemmas)


def test_find_is_in_sense_order(h: Hierarchy, full: Hierarchy) -> None:
    assert [s.name for s in h.find("crane")] == ["crane.n.04", "crane.n.05"]
    assert [s.name for s in full.find("crane")] == ["crane.n.01", "crane.n.02", "grus.n.01", "crane.n.04", "crane.n.05"]
    assert h.find("Great_White  SHARK") == h.find("great white shark") == [h[2]]
    assert h.find("great white") == [] and h.find("") == [] and h.find("zzz") == []


def error_message(h: Hierarchy, key: object) -> str:
    assert key not in h
    with pytest.raises(KeyError) as caught:
        h[key]  # type: ignore[index]
    assert isinstance(caught.value, UnknownSynsetError)
    return str(caught.value)


def test_misspelt(h: Hierarchy, full: Hierarchy) -> None:
    assert "nearest: dog.n.01" in error_message(h, "dgo.n.01")
    assert "nearest: dog.n.01" in error_message(full, "dgo.n.01")
    assert "nearest: great_white_shark.n.01" in error_message(h, "great_wite_shark.n.01")
    assert "nearest: dog.n.03" in error_message(full, "dgo.n.03")
    assert "nearest: wolf.n.01" in error_message(h, "wolves")
    assert "nearest: great_white_shark.n.01" in error_message(h, "great_white_sharks")
    assert "no lemma is spelt similarly" in error_message(h, "xyzzyplugh")
    assert "no lemma is spelt similarly" in error_message(h, "")


def test_ambiguous_lemmas_list_their_synsets(h: Hierarchy) -> None:
    message = error_message(h, "crane")
    assert "ambiguous" in message and "crane.n.04 (lifting device), crane.n.05 (wading bird)" in message


def test_not_in_this_hierarchy(h: Hierarchy) -> None:
    for key in ("n10954498", "einstein.n.01", "Albert Einstein"):
        message = error_message(h, key)
        assert "einstein.n.01 (n10954498)" in message and "'full'" in message


def test_keys_that_are_not_in_wordnet(h: Hierarchy, full: Hierarchy) -> None:
    assert "not a noun of WordNet 3.0" in error_message(h, "n99999999")
    assert "not a noun of WordNet 3.0" in error_message(full, "n00001741")
    assert "a verb" in error_message(h, "run.v.01")
    assert "numbered from 1 to 7" in error_message(h, "dog.n.08")
    assert "numbered from 1 to 7" in error_message(h, "dog.n.00")


def test_not_a_class(h: Hierarchy, full: Hierarchy) -> None:
    assert "0 to 999" in error_message(h, 1000) and "0 to 999" in error_message(h, -1)
    assert "no classes" in error_message(full, 0)
    for key in (True, 2.5, None, b"dog.n.01", ["dog.n.01"]):
        assert "a key is" in error_message(h, key)
    for index in (1000, -1, "tench", None):
        with pytest.raises(UnknownSynsetError, match="0 to 999"):
            h.name(index)  # type: ignore[arg-type]


@given(st.text(max_size=12) | st.integers() | st.floats())
def test_any_key_gives_a_synset_or_an_unknown_synset_error(key: object) -> None:
    h = wordnet.load()
    if key in h:
        assert h[key] in h  # type: ignore[index]
    else:
        error_message(h, key)
