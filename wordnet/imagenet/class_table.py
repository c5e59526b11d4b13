"""The label map of a data set's classes: a table with a row a class, joined to WordNet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from imgtool.wordnet.errors import InputError, listed
from imgtool.wordnet.graph.names import unique_names
from imgtool.wordnet.hierarchy import load
from imgtool.wordnet.tables.nouns import tables
from imgtool.wordnet.tables.orders import ilsvrc2012_ids, ilsvrc2012_wnids


def label_table(wnids: Iterable[str]) -> dict[str, list[Any]]:
    """The columns of the label map, row = class index.

    Args:
        wnids: the names of the classes, in any order. A name that is no wnid of WordNet 3.0 (any folder of class
            folders is a data set) is kept as it is, and its row has nothing from WordNet.

    Returns:
        lists of equal length:

        =============  ================  =====================================================================
        class_index    int               0, 1, …: position among the sorted names
        wnid           str               the class's name as it was given
        synset         str or None       NLTK name, "tench.n.01"
        lemmas         list of str       in WordNet's order, with spaces; or empty
        name           str               to display; no two rows share it (see :meth:`Hierarchy.name`)
        gloss          str or None       definition and examples
        ilsvrc2012_id  int or None       the development kit's ID, where the class is one of its 1000
        hypernyms      list of str       wnids of the parents (of an instance, what it is an instance of); or empty
        path           list of str       wnids from the root to the class itself; or empty. Where a class has
                                         several paths it is the longest, then by WordNet's order: Synset.path
        =============  ================  =====================================================================

    Raises:
        InputError: no classes, or a name twice.
    """
    classes = sorted(wnids)
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice or not classes:
        raise InputError(f"classes given twice: {listed(twice)}" if twice else "no classes")
    known = [name for name in classes if tables().row(name) is not None]
    h = load(known) if known else load("full")
    synsets = [h[wnid] for wnid in known]
    names = unique_names(synsets, taken=set(classes) - set(known))
    ids = dict(zip(ilsvrc2012_wnids(), ilsvrc2012_ids().tolist(), strict=True))
    row_of: dict[str, dict[str, Any]] = {
        synset.wnid: {
            "synset": synset.name,
            "lemmas": list(synset.lemmas),
            "name": name,
            "gloss": synset.gloss,
            "hypernyms": [parent.wnid for parent in synset.parents + synset.instance_of],
            "path": [above.wnid for above in synset.path],
        }
        for synset, name in zip(synsets, names, strict=True)
    }
    nothing: dict[str, Any] = {"synset": None, "lemmas": [], "gloss": None, "hypernyms": [], "path": []}
    rows = [
        {"class_index": index, "wnid": name, "ilsvrc2012_id": ids.get(name)}
        | row_of.get(name, {"name": name} | nothing)
        for index, name in enumerate(classes)
    ]
    columns = ["class_index", "wnid", "synset", "lemmas", "name", "gloss", "ilsvrc2012_id", "hypernyms", "path"]
    return {column: [row[column] for row in rows] for column in columns}
