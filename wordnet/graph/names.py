"""A name for every class that no other class has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from imgtool.wordnet.graph.synset import Synset


def unique_names(synsets: Sequence[Synset], taken: Iterable[str] = ()) -> list[str]:
    """The first lemma of each synset; where several share it, or differ only in case, with what tells them apart.

    That is the first lemma of the first parent, "crane (wading bird)" and "crane (lifting device)", and where
    this does not suffice the NLTK name, "crane (crane.n.05)".

    Args:
        taken: names of classes that are not WordNet's, to be told apart from as well.
    """
    told_apart_by: list[Callable[[Synset], str]] = [kind, lambda synset: synset.name]
    others = [name.casefold() for name in taken]
    names = [synset.lemmas[0] for synset in synsets]
    for qualifier in told_apart_by:
        uses = Counter(others + [name.casefold() for name in names])
        names = [
            f"{synset.lemmas[0]} ({qualifier(synset)})" if uses[name.casefold()] > 1 else name
            for synset, name in zip(synsets, names, strict=True)
        ]
    return names


def kind(synset: Synset) -> str:
    """What it is a kind or an instance of, in a word: the first lemma of the first parent."""
    above = synset.parents + synset.instance_of
    return above[0].lemmas[0] if above else synset.name
