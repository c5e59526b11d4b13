"""Sets of classes: a published one by name, those of a prepared data set, or any list of wnids."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import DatasetError, InputError, UnknownSynsetError, listed
from imgtool.wordnet.tables.nouns import CLASS_SETS, tables
from imgtool.wordnet.tables.orders import ilsvrc2012_wnids

Rows = npt.NDArray[np.int64]

NAMES = ("in1k", *CLASS_SETS, "full")


def class_rows(classes: str | os.PathLike[str] | Iterable[str]) -> Rows | None:
    """Returns the table rows of the `classes` of `imgtool.wordnet.load`, ascending; None for "full".

    Raises the errors of `load`.
    """
    if not isinstance(classes, (str, os.PathLike)):
        return rows_of_wnids(classes)
    if classes == "full":
        return None
    if classes == "in1k":
        return rows_of_wnids(ilsvrc2012_wnids())
    if classes in CLASS_SETS:
        return tables().class_set(str(classes))
    return rows_of_wnids(_prepared_wnids(classes), classes)


def rows_of_wnids(wnids: Iterable[str], path: str | os.PathLike[str] | None = None) -> Rows:
    """Returns the table rows of some wnids, ascending.

    Args:
        wnids: in any order.
        path: the data set that they come from, for error messages.

    Raises:
        UnknownSynsetError: some wnids are not in WordNet 3.0; the message lists them.
        InputError: there are no wnids, or one occurs twice.
    """
    source = "" if path is None else f"{path}: "
    given = list(wnids)
    if not given:
        raise InputError(f"{source}no classes: give at least one wnid")
    rows = {wnid: tables().row(wnid) for wnid in sorted(given)}
    bad = [wnid for wnid, row in rows.items() if row is None]
    if bad:
        raise UnknownSynsetError(
            f"{source}{len(bad):,} of {len(rows):,} classes are not nouns of WordNet 3.0: {listed(bad)}"
        )
    twice = [wnid for wnid, count in Counter(given).items() if count > 1]
    if twice:
        raise InputError(f"{source}classes given twice: {listed(sorted(twice))}")
    return np.array(list(rows.values()), np.int64)


def _prepared_wnids(path: str | os.PathLike[str]) -> list[str]:
    """Reads the wnids of a data set made by `imgtool prepare`."""
    labels = Path(path) / "labels.parquet"
    if not labels.is_file():
        raise InputError(
            f"no class set {str(path)!r}: use one of {', '.join(map(repr, NAMES))}, "
            "or the path of a prepared data set (a folder with labels.parquet)"
        )
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        wnids: list[str] = pq.read_table(labels, columns=["wnid"])["wnid"].to_pylist()
    except (OSError, KeyError, ArrowException) as error:
        raise DatasetError(f"{labels}: cannot be read as a class table: {error}") from error
    return wnids
