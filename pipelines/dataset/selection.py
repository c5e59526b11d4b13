"""Which classes of a source a data set keeps, and their class indices: all, a query's, or a label map's targets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from imgtool import wordnet
from imgtool.wordnet.errors import InputError
from imgtool.wordnet.graph.label_map import LabelMap


class Selection(NamedTuple):
    """The classes of a data set. ``wnids`` are in class-index order; for a label map they are its target names.

    ``index_of`` maps a wnid of the source to its class index and has no entry for a class that is left out.
    """

    wnids: list[str]
    index_of: dict[str, int]


def targets_of(wnids: list[str], label_map: LabelMap) -> npt.NDArray[np.int64]:
    """Returns the label map's target of each of these classes, int64 [wnids], -1 where it drops the class.

    Raises InputError when it does not know one of them.
    """
    target_of = dict(zip(label_map.wnids, label_map.of_class.tolist(), strict=True))
    if unknown := [wnid for wnid in wnids if wnid not in target_of]:
        raise InputError(f"the label map was made for other classes: it does not know {unknown[0]}")
    return np.array([target_of[wnid] for wnid in wnids], np.int64)


def select(wnids: list[str], classes: str = "", label_map: LabelMap | None = None) -> Selection:
    """Selects among a source's ``wnids`` by a query (``--classes``), by a label map (``--labelmap``), or all of them.

    Raises InputError when the label map does not know one of the source's classes, or nothing is selected;
    UnknownSynsetError for a bad query.
    """
    if label_map is not None:
        targets = zip(wnids, targets_of(wnids, label_map).tolist(), strict=True)
        selection = Selection(list(label_map.names), {wnid: target for wnid, target in targets if target >= 0})
    elif classes:
        kept = [wnids[i] for i in wordnet.load(wnids).query(classes)]
        selection = Selection(kept, {wnid: i for i, wnid in enumerate(kept)})
    else:
        selection = Selection(wnids, {wnid: i for i, wnid in enumerate(wnids)})
    if not selection.index_of:
        raise InputError(
            f"none of the source's {len(wnids)} classes is selected by {repr(classes) if classes else 'the label map'}"
        )
    return selection
