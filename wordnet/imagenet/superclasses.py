"""A coarse name for each class: dog, bird, conveyance, musical instrument.

The rule: of the class's ancestors on its longest path from the root, the highest that holds at most an eighth of
ILSVRC2012's classes; of those with the same classes, the lowest. So the classes of ILSVRC2012 fall into 74 disjoint
superclasses, of 118 classes (dog) down to one, and a class has the same whatever other classes it comes with. For a
task's superclasses, of a wanted number or size, there is :mod:`imgtool.wordnet.tasks.splits`.
"""

from __future__ import annotations

from functools import cache, lru_cache

from imgtool.wordnet.errors import UnknownSynsetError
from imgtool.wordnet.graph.synset import Synset
from imgtool.wordnet.hierarchy import load

MOST = 125
"""Classes of ILSVRC2012 in one superclass: dogs are 118, placental mammals 212, invertebrates 61."""


def superclass(synset: Synset) -> Synset:
    """The superclass of a class: an ancestor of it, of the same hierarchy; itself only where it is a large one."""
    counts = _in1k_counts()
    path = [above for above in synset.path if above.wnid != synset.wnid or counts.get(above.wnid, 0) > 1]
    small = [above for above in path if counts.get(above.wnid, 0) <= MOST]
    if not small:
        return path[-1] if path else synset  # its parent is large already: a hyena is a canine
    most = counts.get(small[0].wnid, 0)
    return next(above for above in reversed(small) if counts.get(above.wnid, 0) == most)


@lru_cache(maxsize=16)  # a third of a second for a thousand classes, and the same ones are asked for again
def superclass_names(wnids: tuple[str, ...]) -> tuple[str, ...]:
    """The first lemma of each class's superclass; "" for a class that is not WordNet's."""
    try:
        hierarchy = load(set(wnids))
        return tuple(superclass(hierarchy[wnid]).lemmas[0] for wnid in wnids)
    except UnknownSynsetError:  # some are not: one by one
        return ("",) if len(wnids) == 1 else tuple(superclass_names((wnid,))[0] for wnid in wnids)


@cache
def _in1k_counts() -> dict[str, int]:
    """How many classes of ILSVRC2012 are at or below a synset, by wnid; those with none are not in it."""
    return {synset.wnid: len(synset.classes) for synset in load()}
