"""A coarse name for each class, such as dog, bird, conveyance or musical instrument.

The superclass of a class is the highest ancestor, on its longest path from the root, that holds at most an eighth of
ILSVRC2012's classes; of several ancestors with the same classes it is the lowest. This divides ILSVRC2012 into 74
disjoint superclasses of 118 classes (dog) to one class. The superclass does not depend on the other classes of the data
set. `imgtool.wordnet.tasks.splits` makes superclasses of a given number or size.
"""

from __future__ import annotations

from functools import cache, lru_cache

from imgtool.wordnet.errors import UnknownSynsetError
from imgtool.wordnet.graph.synset import Synset
from imgtool.wordnet.hierarchy import load

MAX_CLASSES = 125
"""The most classes of ILSVRC2012 in a superclass. Dogs have 118, placental mammals 212, invertebrates 61."""


def superclass(synset: Synset) -> Synset:
    """Returns the superclass of a class, in the same hierarchy: an ancestor, or itself if it holds several classes."""
    counts = _in1k_counts()
    path = [above for above in synset.path if above.wnid != synset.wnid or counts.get(above.wnid, 0) > 1]
    small = [above for above in path if counts.get(above.wnid, 0) <= MAX_CLASSES]
    if not small:
        return path[-1] if path else synset  # its parent is too large already
    most = counts.get(small[0].wnid, 0)
    return next(above for above in reversed(small) if counts.get(above.wnid, 0) == most)


@lru_cache(maxsize=16)  # 0.3 s for 1000 classes, and callers repeat the same ones
def superclass_names(wnids: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the first lemma of each class's superclass; "" for a class that is not in WordNet."""
    try:
        hierarchy = load(set(wnids))
        return tuple(superclass(hierarchy[wnid]).lemmas[0] for wnid in wnids)
    except UnknownSynsetError:  # some are not in WordNet: look each up alone
        return ("",) if len(wnids) == 1 else tuple(superclass_names((wnid,))[0] for wnid in wnids)


@cache
def _in1k_counts() -> dict[str, int]:
    """Maps the wnid of each synset with classes of ILSVRC2012 at or below it to their number."""
    return {synset.wnid: len(synset.classes) for synset in load()}
