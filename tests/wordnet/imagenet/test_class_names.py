"""Conversion of the class names of other libraries' models to wnids."""

from __future__ import annotations

import random

from imgtool import wordnet
from imgtool.wordnet.imagenet.class_names import KERAS_NAMES, ilsvrc2012_wnids_of
from imgtool.wordnet.tables.orders import ilsvrc2012_wnids


def published(h: wordnet.Hierarchy) -> list[str]:
    """Keras's list: first lemmas with underscores, with four exceptions."""
    special = {wnid: name for name, wnid in KERAS_NAMES.items()}
    return [special.get(wnid, h[wnid].lemmas[0]).replace(" ", "_") for wnid in h.wnids]


def test_the_published_list_in_any_order(h: wordnet.Hierarchy) -> None:
    names = published(h)
    assert names[:3] == ["tench", "goldfish", "great_white_shark"] and names[134] == "crane_(bird)"
    assert names[264] == "Cardigan" and names[474] == "cardigan"
    assert ilsvrc2012_wnids_of(names) == ilsvrc2012_wnids()
    order = list(range(1000))
    random.Random(0).shuffle(order)
    assert ilsvrc2012_wnids_of([names[i] for i in order]) == [h.wnids[i] for i in order]
    swapped = list(range(1000))
    swapped[3], swapped[700] = swapped[700], swapped[3]
    assert ilsvrc2012_wnids_of([names[i] for i in swapped]) == [h.wnids[i] for i in swapped]


def test_our_own_names_in_any_order(h: wordnet.Hierarchy) -> None:
    assert ilsvrc2012_wnids_of(h.names) == h.wnids
    assert ilsvrc2012_wnids_of(h.names[::-1]) == h.wnids[::-1]


def test_shared_names_are_resolved_by_position(h: wordnet.Hierarchy) -> None:
    first = [h[wnid].lemmas[0] for wnid in h.wnids]
    assert first[134] == first[517] == "crane" and first[638] == first[639] == "maillot"
    assert ilsvrc2012_wnids_of(first) == h.wnids
    assert ilsvrc2012_wnids_of([name.lower() for name in first]) == h.wnids  # two cardigans now
    last = [h[wnid].lemmas[-1] for wnid in h.wnids]
    assert ilsvrc2012_wnids_of(last) == h.wnids


def test_a_list_with_unknown_names_in_sorted_order(h: wordnet.Hierarchy) -> None:
    names = [f"the {name}" if i % 3 == 0 else name for i, name in enumerate(published(h))]
    assert ilsvrc2012_wnids_of(names) == h.wnids


def test_lists_of_other_classes(h: wordnet.Hierarchy) -> None:
    assert ilsvrc2012_wnids_of([str(i) for i in range(1000)]) is None
    assert ilsvrc2012_wnids_of(published(h)[:999]) is None
    assert ilsvrc2012_wnids_of(["tench"] * 1000) is None
    names = published(h)
    assert ilsvrc2012_wnids_of([f"my {name}" for name in names[:600]] + names[600:]) is None
