"""Converts lists of class names to wnids, for models whose files have only the names of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from imgtool.wordnet.hierarchy import load
from imgtool.wordnet.tables.orders import ilsvrc2012_wnids

# Keras's list of ImageNet's class names, also in the YOLOv8-cls weights, consists of first lemmas except for these.
KERAS_NAMES = {
    "crane (bird)": "n02012849",
    "crane (machine)": "n03126707",
    "maillot (tights)": "n03710637",
    "maillot (tank suit)": "n03710721",
}


def ilsvrc2012_wnids_of(names: Sequence[str]) -> list[str] | None:
    """Returns the wnids of the 1000 class names of ILSVRC2012, in the order of the names; None for other names.

    A name is matched, with underscores or spaces, to a class by `Hierarchy.name`, by Keras's name, by the first lemma
    (its case separates the dog Cardigan from the garment), or else by any lemma. A name that several classes share
    ("crane") is matched to the class whose class index is the name's position in the list.

    If this matches every name to a different class, their wnids are returned. Otherwise, if more than half of the names
    match the class of their position, the list is taken to be in the order of the class indices, with some names that
    WordNet does not have ("American dipper" is not a lemma of water ouzel).
    """
    wnids = ilsvrc2012_wnids()
    if len(names) != len(wnids):
        return None
    matches = [_class_index(name.replace("_", " "), position) for position, name in enumerate(names)]
    if None not in matches and len(set(matches)) == len(wnids):
        return [wnids[index] for index in matches if index is not None]
    in_place = sum(index == position for position, index in enumerate(matches))
    return wnids if in_place > len(wnids) // 2 else None


def _class_index(name: str, position: int) -> int | None:
    """Returns the class index of the name at this position of its list, None if it has none."""
    for key, found in zip((name, name, name.casefold(), name.casefold()), _lookups(), strict=True):
        candidates = found.get(key, ())
        if len(candidates) == 1:
            return candidates[0]
        if position in candidates:
            return position
    return None


@cache
def _lookups() -> tuple[dict[str, list[int]], ...]:
    """Maps names to classes: by unique name, by first lemma, by first lemma in any case, by any lemma in any case."""
    h = load()
    lemmas = [h[index].lemmas for index in range(h.num_classes)]
    keras = {wnid: name for name, wnid in KERAS_NAMES.items()}
    return (
        _classes_by([[name, keras.get(wnid, name)] for name, wnid in zip(h.names, h.wnids, strict=True)]),
        _classes_by([[names[0]] for names in lemmas]),
        _classes_by([[names[0].casefold()] for names in lemmas]),
        _classes_by([[name.casefold() for name in names] for names in lemmas]),
    )


def _classes_by(names: list[list[str]]) -> dict[str, list[int]]:
    """Maps each name to the class indices that have it."""
    found: dict[str, list[int]] = {}
    for index, of_class in enumerate(names):
        for name in set(of_class):
            found.setdefault(name, []).append(index)
    return found
