"""The class table: one row per class of a data set, with what WordNet says about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from imgtool.wordnet.errors import InputError, listed
from imgtool.wordnet.graph.names import unique_names
from imgtool.wordnet.hierarchy import load
from imgtool.wordnet.tables.nouns import tables
from imgtool.wordnet.tables.orders import ilsvrc2012_ids, ilsvrc2012_wnids


def class_table(wnids: Iterable[str]) -> dict[str, list[Any]]:
    """Makes the columns of the class table; the row is the class index.

    Args:
        wnids: the names of the classes, in any order. A name that is not a wnid of WordNet 3.0, such as the folder name
            in any folder of class folders, is kept, and its row has nothing from WordNet.

    Returns:
        Lists of equal length, by column:

            | column | type | content |
            | --- | --- | --- |
            | class_index | int | 0, 1, …: the position among the sorted names |
            | wnid | str | the name of the class as it was given |
            | synset | str or None | the NLTK name, "tench.n.01" |
            | lemmas | list of str | in WordNet's order, with spaces; may be empty |
            | name | str | for display, unique among the rows; see `Hierarchy.name` |
            | gloss | str or None | definition and examples |
            | ilsvrc2012_id | int or None | the development kit's ID, for the 1000 classes of ILSVRC2012 |
            | hypernyms | list of str | the wnids of the parents (`parents`, then `instance_of`); may be empty |
            | path | list of str | the wnids from the root to the class itself, as in `Synset.path`; may be empty |

    Raises:
        InputError: there are no classes, or a name is given twice.
    """
    classes = sorted(wnids)
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice or not classes:
        raise InputError(f"classes given twice: {listed(twice)}" if twice else "no classes: give at least one")
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
