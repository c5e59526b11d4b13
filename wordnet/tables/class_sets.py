"""Sets of classes: the published ones by name, a prepared data set's, or anyone's list of wnids."""

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
    """The table rows of the classes that :func:`imgtool.wordnet.load` is given, ascending; None for "full".

    Raises:
        InputError, UnknownSynsetError, DatasetError: see there.
    """
    if not isinstance(classes, (str, os.PathLike)):
        return rows_of_wnids(classes)
    if classes == "full":
        return None
    if classes == "in1k":
        return rows_of_wnids(ilsvrc2012_wnids())
    if classes in CLASS_SETS:
        return tables().class_set(str(classes))
    return rows_of_wnids(_prepared_wnids(classes), f"{classes}: ")


def rows_of_wnids(wnids: Iterable[str], where: str = "") -> Rows:
    """The rows of these wnids, ascending.

    Args:
        where: opens the errors' messages.

    Raises:
        UnknownSynsetError: some are not WordNet 3.0's; it names them.
        InputError: there are none, or one is there twice.
    """
    given = list(wnids)
    if not given:
        raise InputError(f"{where}no classes: give at least one wnid")
    rows = {wnid: tables().row(wnid) for wnid in sorted(given)}
    bad = [wnid for wnid, row in rows.items() if row is None]
    if bad:
        raise UnknownSynsetError(
            f"{where}{len(bad):,} of {len(rows):,} classes are not nouns of WordNet 3.0: {listed(bad)}"
        )
    twice = [wnid for wnid, count in Counter(given).items() if count > 1]
    if twice:
        raise InputError(f"{where}classes given twice: {listed(sorted(twice))}")
    return np.array(list(rows.values()), np.int64)


def _prepared_wnids(path: str | os.PathLike[str]) -> list[str]:
    """The classes of the data set that ``imgtool prepare`` left at ``path``."""
    labels = Path(path) / "labels.parquet"
    if not labels.is_file():
        raise InputError(
            f"no class set {str(path)!r}: there are {', '.join(map(repr, NAMES))}, "
            "or give a list of wnids or the path of a prepared data set (with its labels.parquet)"
        )
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        wnids: list[str] = pq.read_table(labels, columns=["wnid"])["wnid"].to_pylist()
    except (OSError, KeyError, ArrowException) as error:
        raise DatasetError(f"{labels}: cannot be read as a label map: {error}") from error
    return wnids
