"""Keys of `h[key]`: which synsets a name may mean, and the error messages for unknown and ambiguous keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import SupportsIndex

import numpy as np

from imgtool.wordnet.errors import UnknownSynsetError, listed
from imgtool.wordnet.graph.names import parent_lemma
from imgtool.wordnet.graph.synset import Synset
from imgtool.wordnet.graph.types import SynsetGraph
from imgtool.wordnet.tables.morphology import base_forms
from imgtool.wordnet.tables.nouns import is_wnid, tables
from imgtool.wordnet.tables.spelling import nearest

_NLTK_NAME = re.compile(r"(.+)\.([nvasr])\.(\d+)")
_FULL = "the class set 'full' has every noun"
_PARTS_OF_SPEECH = {"v": "a verb", "a": "an adjective", "s": "an adjective", "r": "an adverb"}


@lru_cache(maxsize=1 << 14)
def rows_of(key: str) -> tuple[int, ...]:
    """Returns the table rows, among all nouns, that a wnid, an NLTK name or a lemma may mean."""
    if is_wnid(key):
        row = tables().row(key)
        return () if row is None else (row,)
    name = _NLTK_NAME.fullmatch(key)
    if name is None:
        return tuple(tables().senses(key))
    lemma, part_of_speech, sense = name[1], name[2], int(name[3])
    return tuple(tables().senses(lemma)[sense - 1 : sense]) if part_of_speech == "n" else ()


def unknown_key(h: SynsetGraph, key: object, nodes: Sequence[int]) -> UnknownSynsetError:
    """Returns the error for a key that matches no synset of `h`, or several, `nodes`; the message suggests others."""
    if isinstance(key, str):
        return UnknownSynsetError(_ambiguous(h, key, nodes) if nodes else _not_here(h, key) or _misspelt(h, key))
    if not isinstance(key, SupportsIndex) or isinstance(key, bool):
        return UnknownSynsetError(
            f"{key!r} is not a key: a key is a wnid, an NLTK name, a lemma, a class index, or the synset of a noun"
        )
    return not_a_class(h, key)


def not_a_class(h: SynsetGraph, index: object) -> UnknownSynsetError:
    """Returns the error for a number, or another object, that is not a class index of `h`."""
    if not h.num_classes:
        return UnknownSynsetError(f"no class {index!r}: this hierarchy has no classes; use a wnid or a name")
    return UnknownSynsetError(f"no class {index!r}: class indices go from 0 to {h.num_classes - 1}")


def _ambiguous(h: SynsetGraph, key: str, nodes: Sequence[int]) -> str:
    synsets = listed(f"{s.name} ({parent_lemma(s)})" for s in (Synset(h, node) for node in nodes))
    return f"{key!r} is ambiguous; use one of {synsets}"


def _not_here(h: SynsetGraph, key: str) -> str | None:
    """Returns the message for a key that is in WordNet but not in `h`; None for any other key."""
    rows = rows_of(key)
    if not rows:
        return f"{key!r} is not a noun of WordNet 3.0" if is_wnid(key) else None
    synsets = listed(f"{tables().name(row)} ({tables().wnid(row)})" for row in rows)
    return f"{key!r} is in WordNet ({synsets}) but not among this hierarchy's {len(h):,} synsets; {_FULL}"


def _misspelt(h: SynsetGraph, key: str) -> str:
    """Returns the message for a key that is not in WordNet."""
    name = _NLTK_NAME.fullmatch(key)
    if name is not None and name[2] != "n":
        return f"{key!r} is {_PARTS_OF_SPEECH[name[2]]}: the hierarchy has only nouns, such as 'dog.n.01'"
    lemma, sense = (name[1], int(name[3])) if name else (key, 1)
    senses = tables().senses(lemma)
    if senses:  # so only the sense number is wrong
        return f"no synset {key!r}: the senses of {lemma!r} are numbered from 1 to {len(senses)}"
    bases = [form.replace("_", " ") for form in base_forms(lemma) if np.isin(tables().senses(form), h.rows).any()]
    words = (word.lower() for row in h.rows.tolist() for word in tables().lemmas(row))
    meant = bases or nearest(lemma.lower().replace("_", " "), words)
    near = [_sense_name(h, word, sense) for word in meant]
    hint = f"nearest: {listed(near)}" if near else f"no lemma is spelt similarly; {_FULL}"
    return f"no synset {key!r} in this hierarchy of {len(h):,} synsets; {hint}"


def _sense_name(h: SynsetGraph, lemma: str, sense: int) -> str:
    """Returns the NLTK name of a lemma with this sense number, or with the first one that the hierarchy has."""
    names = [f"{lemma.replace(' ', '_')}.n.{number + 1:02d}" for number in range(len(tables().senses(lemma)))]
    wanted = names[sense - 1 : sense]
    return next(name for name in wanted + names if name in h)
