"""Superclasses: the coarse name of each class."""

from __future__ import annotations

from collections import Counter

import pytest

from imgtool import wordnet
from imgtool.wordnet.imagenet.superclasses import MAX_CLASSES, superclass, superclass_names


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("n01440764", "fish"),
        ("Chihuahua", "dog"),
        ("hyena", "canine"),
        ("robin.n.02", "bird"),
        ("sports_car.n.01", "conveyance"),
        ("bassoon", "musical instrument"),
        ("pillow", "cushion"),
    ],
)
def test_superclass_of_a_class(key, expected):
    assert superclass(wordnet.load()[key]).lemmas[0] == expected


def test_ilsvrc2012_is_divided_into_disjoint_superclasses():
    h = wordnet.load()
    found = [superclass(h[index]) for index in range(1000)]
    counts = Counter(s.wnid for s in found)
    assert len(counts) == 74
    assert max(counts.values()) == 118 <= MAX_CLASSES
    for index, above in enumerate(found):
        assert h.is_a(index, above)
        assert above.wnid != h[index].wnid


def test_other_classes_do_not_matter():
    h, large = wordnet.load(), wordnet.load("in12k")
    names = dict(zip(large.wnids, superclass_names(tuple(large.wnids)), strict=True))
    of_1k = dict(zip(h.wnids, superclass_names(tuple(h.wnids)), strict=True))
    same = [names[wnid] == name for wnid, name in of_1k.items() if wnid in names]
    assert len(same) > 900 and all(same)
    assert superclass_names(("n01440764",)) == ("fish",)
    assert superclass_names(("cat", "n02084071", "n01440764")) == ("", "dog", "fish")
