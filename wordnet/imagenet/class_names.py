"""Lists of class names made elsewhere, turned into wnids: the border for models that know their classes by name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from imgtool.wordnet.hierarchy import load
from imgtool.wordnet.tables.orders import ilsvrc2012_wnids

# Keras's list of ImageNet's classes, which YOLOv8-cls's weights carry, is of first lemmas but for these.
KERAS = {
    "crane (bird)": "n02012849",
    "crane (machine)": "n03126707",
    "maillot (tights)": "n03710637",
    "maillot (tank suit)": "n03710721",
}


def ilsvrc2012_wnids_of(names: Sequence[str]) -> list[str] | None:
    """The wnids of 1000 class names, in their order, if they are ILSVRC2012's; None if they are not.

    Names may have underscores or spaces. They are :meth:`Hierarchy.name`'s, Keras's, first lemmas (case tells the dog
    Cardigan from the garment), or else any lemma; where two classes share that ("crane"), it is of the one at whose
    place in the sorted order it stands. If so each name finds a class of its own, those are the wnids. If not, but
    more than half of the names find their class at their place in the sorted order, the list is in that order, with
    some names of its making ("American dipper" is no lemma of the water ouzel's).
    """
    wnids = ilsvrc2012_wnids()
    if len(names) != len(wnids):
        return None
    places = [_place(name.replace("_", " "), index) for index, name in enumerate(names)]
    if None not in places and len(set(places)) == len(wnids):
        return [wnids[place] for place in places if place is not None]
    in_place = sum(place == index for index, place in enumerate(places))
    return wnids if in_place > len(wnids) // 2 else None


def _place(name: str, index: int) -> int | None:
    """The class index of a name that stands at ``index`` of its list."""
    for key, found in zip((name, name, name.casefold(), name.casefold()), _lookups(), strict=True):
        candidates = found.get(key, ())
        if len(candidates) == 1:
            return candidates[0]
        if index in candidates:
            return index
    return None


@cache
def _lookups() -> tuple[dict[str, list[int]], ...]:
    """The classes that go by a name: a unique one, the first lemma, that whatever its case, any lemma."""
    h = load()
    lemmas = [h[index].lemmas for index in range(h.num_classes)]
    keras = {wnid: name for name, wnid in KERAS.items()}
    return (
        _classes_by([[name, keras.get(wnid, name)] for name, wnid in zip(h.names, h.wnids, strict=True)]),
        _classes_by([[names[0]] for names in lemmas]),
        _classes_by([[names[0].casefold()] for names in lemmas]),
        _classes_by([[name.casefold() for name in names] for names in lemmas]),
    )


def _classes_by(names: list[list[str]]) -> dict[str, list[int]]:
    """The class indices that each name stands at."""
    found: dict[str, list[int]] = {}
    for index, of_class in enumerate(names):
        for name in set(of_class):
            found.setdefault(name, []).append(index)
    return found
