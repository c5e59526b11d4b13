"""Keys: what a name in ``h[name]`` stands for, and what to say when it stands for nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import SupportsIndex

import numpy as np

from imgtool.wordnet.errors import UnknownSynsetError, listed
from imgtool.wordnet.graph.names import kind
from imgtool.wordnet.graph.synset import Synset
from imgtool.wordnet.graph.types import SynsetGraph
from imgtool.wordnet.tables.morphology import base_forms
from imgtool.wordnet.tables.nouns import is_wnid, tables
from imgtool.wordnet.tables.spelling import nearest

_NLTK_NAME = re.compile(r"(.+)\.([nvasr])\.(\d+)")
_PARTS_OF_SPEECH = {"v": "a verb", "a": "an adjective", "s": "an adjective", "r": "an adverb"}


@lru_cache(maxsize=1 << 14)
def rows_of(key: str) -> tuple[int, ...]:
    """The table rows, in all of WordNet, that a wnid, an NLTK name or a lemma may mean."""
    if is_wnid(key):
        row = tables().row(key)
        return () if row is None else (row,)
    name = _NLTK_NAME.fullmatch(key)
    if name is None:
        return tuple(tables().senses(key))
    lemma, part_of_speech, sense = name[1], name[2], int(name[3])
    return tuple(tables().senses(lemma)[sense - 1 : sense]) if part_of_speech == "n" else ()


def unknown(h: SynsetGraph, key: object, nodes: Sequence[int]) -> UnknownSynsetError:
    """The error for a key that means no synset of ``h``, or (``nodes``) several; its text helps to a better one."""
    if isinstance(key, str):
        return UnknownSynsetError(_ambiguous(h, key, nodes) if nodes else _not_here(h, key) or _misspelt(h, key))
    if not isinstance(key, SupportsIndex) or isinstance(key, bool):
        return UnknownSynsetError(
            f"no key {key!r}: a key is a wnid, an NLTK name, a lemma, a class index, or a noun's synset"
        )
    return no_class(h, key)


def no_class(h: SynsetGraph, index: object) -> UnknownSynsetError:
    """The error for what is no class index of ``h``."""
    if not h.num_classes:
        return UnknownSynsetError(f"no class {index!r}: this hierarchy has no classes; use a wnid or a name")
    return UnknownSynsetError(f"no class {index!r}: class indices go from 0 to {h.num_classes - 1}")


def _ambiguous(h: SynsetGraph, key: str, nodes: Sequence[int]) -> str:
    return f"{key!r} is ambiguous: {listed(f'{s.name} ({kind(s)})' for s in (Synset(h, node) for node in nodes))}"


def _not_here(h: SynsetGraph, key: str) -> str | None:
    """For a key that WordNet knows."""
    rows = rows_of(key)
    if not rows:
        return f"{key!r} is not a noun of WordNet 3.0" if is_wnid(key) else None
    synsets = listed(f"{tables().name(row)} ({tables().wnid(row)})" for row in rows)
    return f"{key!r} is in WordNet: {synsets}, but not in this hierarchy of {len(h):,}; load('full') has every noun"


def _misspelt(h: SynsetGraph, key: str) -> str:
    name = _NLTK_NAME.fullmatch(key)
    if name is not None and name[2] != "n":
        return f"{key!r} is {_PARTS_OF_SPEECH[name[2]]}: the hierarchy is of nouns, 'dog.n.01'"
    lemma, sense = (name[1], int(name[3])) if name else (key, 1)
    senses = tables().senses(lemma)
    if senses:  # so it is the number that is wrong
        return f"no synset {key!r}: the senses of {lemma!r} are numbered 1 to {len(senses)}"
    bases = [form.replace("_", " ") for form in base_forms(lemma) if np.isin(tables().senses(form), h.rows).any()]
    words = (word.lower() for row in h.rows.tolist() for word in tables().lemmas(row))
    meant = bases or nearest(lemma.lower().replace("_", " "), words)
    near = [_sense_name(h, word, sense) for word in meant]
    hint = f"nearest: {listed(near)}" if near else "nothing is spelt like it; load('full') has every noun"
    return f"no synset {key!r} in this hierarchy of {len(h):,} synsets; {hint}"


def _sense_name(h: SynsetGraph, lemma: str, sense: int) -> str:
    """An NLTK name made from this lemma: with this sense number if the hierarchy has it, else its first sense here."""
    names = [f"{lemma.replace(' ', '_')}.n.{number + 1:02d}" for number in range(len(tables().senses(lemma)))]
    wanted = names[sense - 1 : sense]
    return next(name for name in wanted + names if name in h)
