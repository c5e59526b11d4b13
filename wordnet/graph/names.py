"""Unique display names for classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from imgtool.wordnet.graph.synset import Synset


def unique_names(synsets: Sequence[Synset], taken: Iterable[str] = ()) -> list[str]:
    """Returns a unique name for each synset: its first lemma, with a qualifier where several share it (in any case).

    The qualifier is the first lemma of the first parent, as in "crane (wading bird)" and "crane (lifting device)", or
    where that is not enough the NLTK name, as in "crane (crane.n.05)".

    Args:
        synsets: the synsets to name.
        taken: names that are in use already, such as those of classes that are not in WordNet.
    """
    qualifiers: list[Callable[[Synset], str]] = [parent_lemma, lambda synset: synset.name]
    others = [name.casefold() for name in taken]
    names = [synset.lemmas[0] for synset in synsets]
    for qualifier in qualifiers:
        uses = Counter(others + [name.casefold() for name in names])
        names = [
            f"{synset.lemmas[0]} ({qualifier(synset)})" if uses[name.casefold()] > 1 else name
            for synset, name in zip(synsets, names, strict=True)
        ]
    return names


def parent_lemma(synset: Synset) -> str:
    """Returns the first lemma of the first parent, which the synset is a kind or an instance of."""
    above = synset.parents + synset.instance_of
    return above[0].lemmas[0] if above else synset.name
