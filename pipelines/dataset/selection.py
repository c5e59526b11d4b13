"""Which of a source's classes a data set keeps, and under which index: all of them, a query's, or a label map's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from imgtool import wordnet
from imgtool.wordnet.errors import InputError
from imgtool.wordnet.graph.label_map import LabelMap


class Selection(NamedTuple):
    """``wnids`` are the data set's classes in class-index order (a label map's target names); ``index_of`` gives the
    class index of a source's wnid, and has no entry for one that is left out."""

    wnids: list[str]
    index_of: dict[str, int]


def classes_of(wnids: list[str], labelmap: LabelMap) -> npt.NDArray[np.int64]:
    """int64 [wnids]: the label map's target for each of these classes, -1 where it drops it.

    Raises InputError when it does not know one of them.
    """
    target_of = dict(zip(labelmap.wnids, labelmap.of_class.tolist(), strict=True))
    if unknown := [wnid for wnid in wnids if wnid not in target_of]:
        raise InputError(f"the label map was made over other classes: it does not know {unknown[0]}")
    return np.array([target_of[wnid] for wnid in wnids], np.int64)


def select(wnids: list[str], classes: str = "", labelmap: LabelMap | None = None) -> Selection:
    """The selection that a query (``--classes``) or a label map (``--labelmap``) makes among a source's ``wnids``.

    Raises InputError when the label map does not know one of the source's classes, or nothing is selected;
    UnknownSynsetError for a bad query.
    """
    if labelmap is not None:
        targets = zip(wnids, classes_of(wnids, labelmap).tolist(), strict=True)
        selection = Selection(list(labelmap.names), {wnid: target for wnid, target in targets if target >= 0})
    elif classes:
        kept = [wnids[i] for i in wordnet.load(wnids).query(classes)]
        selection = Selection(kept, {wnid: i for i, wnid in enumerate(kept)})
    else:
        selection = Selection(wnids, {wnid: i for i, wnid in enumerate(wnids)})
    if not selection.index_of:
        raise InputError(f"none of the source's {len(wnids)} classes is selected by {classes or 'the label map'!r}")
    return selection
