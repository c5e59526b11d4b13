"""The hierarchy: WordNet's graph over a data set's classes, and the class indices that go with it."""

from __future__ import annotations

import operator
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, Literal, SupportsIndex

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import UnknownSynsetError
from imgtool.wordnet.graph.dag import Dag, gather
from imgtool.wordnet.graph.keys import no_class, rows_of, unknown
from imgtool.wordnet.graph.label_map import LabelMap, labelmap
from imgtool.wordnet.graph.names import unique_names
from imgtool.wordnet.graph.relations import Relations
from imgtool.wordnet.graph.synset import Synset
from imgtool.wordnet.graph.types import Key, Keys, Many, NltkSynset
from imgtool.wordnet.tables.class_sets import NAMES, class_rows
from imgtool.wordnet.tables.morphology import base_forms
from imgtool.wordnet.tables.nouns import tables


def load(classes: str | os.PathLike[str] | Iterable[str] = "in1k") -> Hierarchy:
    """The hierarchy over a set of classes: the classes and everything above them.

    Args:
        classes: one of

            - ``"in1k"``, the 1000 classes of ILSVRC2012;
            - ``"in22k"``, the 21,841 of the full release of fall 2011 (fall11_whole.tar);
            - ``"in12k"``, 11,821 of those;
            - ``"in21k"``, the 10,450 of ImageNet-21K-P, the winter 2021 release as Ridnik et al. 2021 processed it
              ("ImageNet-21K Pretraining for the Masses", arXiv:2104.10972);
            - ``"full"``, all 82,115 nouns, none of them a class;
            - wnids in any order;
            - the path of a data set that ``imgtool prepare`` made, for its classes.

            Class indices follow the sorted wnids.

    Raises:
        UnknownSynsetError: some of the wnids are not WordNet 3.0's; it names them.
        InputError: neither a name from above nor a data set's path; no wnids at all, or one twice.
        DatasetError: a data set whose label map cannot be read.
    """
    return _load(classes) if isinstance(classes, str) and classes in NAMES else Hierarchy(class_rows(classes))


@cache  # hierarchies do not change, so all may share them
def _load(name: str) -> Hierarchy:
    return Hierarchy(class_rows(name))


class Hierarchy(Relations):
    """A directed acyclic graph of synsets, some of which are classes. Make one by :func:`load`.

    ``h[key]`` takes

    - a wnid, ``"n02084071"``;
    - an NLTK name, ``"dog.n.01"``, by any of the synset's lemmas: ``"domestic_dog.n.01"`` is the same;
    - a lemma, ``"domestic dog"``, if just one synset of this hierarchy has it; ambiguous ones are refused;
    - a class index;
    - a Synset, of this hierarchy or another, or one of NLTK's.

    Any other raises UnknownSynsetError, which is a KeyError, and says what is near. ``key in h`` tells whether
    ``h[key]`` would answer. ``len`` and iteration are over all synsets, in wnid order.

    Attributes:
        dag: the graph, hypernym and instance pointers alike. Its nodes are positions in wnid order.
        is_instance: bool [edges], parallel to ``dag.parents``: the edge is an instance pointer.
        rows: int32 [nodes]: each node's row in :mod:`imgtool.wordnet.tables.nouns`.
        class_nodes: int64 [classes]: the node of each class.
        class_of_node: int64 [nodes]: the class index, -1 where the node is not a class.
    """

    def __init__(self, classes: npt.NDArray[np.integer] | None) -> None:
        """Over the classes in these table rows, ascending; None for all nouns and no classes."""
        self.tables = tables()
        indptr, parents = self.tables.parent_indptr, self.tables.parent
        everything = Dag(indptr, parents)
        if classes is None:
            self.rows = np.arange(len(everything), dtype=np.int32)
            self.dag, self.is_instance = everything, self.tables.parent_is_instance
        else:
            self.rows = np.sort(everything.up(classes)).astype(np.int32)
            edges = gather(indptr, self.rows)
            counts = indptr[self.rows + 1] - indptr[self.rows]
            self.dag = Dag(np.append(0, np.cumsum(counts)), np.searchsorted(self.rows, parents[edges]))
            self.is_instance = self.tables.parent_is_instance[edges]
        self.class_nodes = np.searchsorted(self.rows, () if classes is None else classes)
        self.class_of_node = np.full(len(self.rows), -1, np.int64)
        self.class_of_node[self.class_nodes] = np.arange(len(self.class_nodes))
        self._kept: dict[str, npt.NDArray[Any]] = {}

    def __reduce__(self) -> tuple[type[Hierarchy], tuple[npt.NDArray[np.integer] | None]]:
        return Hierarchy, (self.rows[self.class_nodes] if self.num_classes else None,)  # not what can be made again

    @property
    def num_classes(self) -> int:
        return len(self.class_nodes)

    @cached_property
    def wnids(self) -> list[str]:
        """The classes' wnids, sorted: position = class index. Empty for "full"."""
        return [self.tables.wnid(row) for row in self.rows[self.class_nodes].tolist()]

    # Synsets.

    def __getitem__(self, key: Key) -> Synset:
        nodes = self._lookup(key)
        if len(nodes) != 1:
            raise unknown(self, _name(key), nodes)
        return Synset(self, nodes[0])

    def __contains__(self, key: object) -> bool:
        return len(self._lookup(key)) == 1

    def find(self, word: str) -> list[Synset]:
        """The synsets of this hierarchy that have this lemma, or one of its base forms ("poodles"); perhaps none.

        Case does not matter, nor whether words are joined by spaces or underscores. They are in WordNet's sense
        order, the word itself before its base forms, which are those of NLTK's morphy: so it is what NLTK's
        ``synsets(word, "n")`` finds, as far as it is in this hierarchy.
        """
        rows = [row for form in base_forms(word) for row in self.tables.senses(form)]
        return [Synset(self, node) for node in self._nodes(list(dict.fromkeys(rows)))]

    def nodes(self, keys: Key | Many) -> npt.NDArray[np.int64]:
        """The nodes that keys stand for.

        Args:
            keys: a key; several in a list or tuple, perhaps nested; or an array of class indices of any shape.

        Returns:
            int64, the shape of ``keys``; [] for one key.

        Raises:
            UnknownSynsetError: no synset goes by such a key.
        """
        if isinstance(keys, np.ndarray) and keys.dtype.kind in "iu":
            wrong = keys[(keys < 0) | (keys >= self.num_classes)]
            if wrong.size:
                raise no_class(self, int(wrong.flat[0]))
            return np.asarray(self.class_nodes[keys])
        if isinstance(keys, (list, tuple)) or (isinstance(keys, np.ndarray) and keys.ndim):
            return np.array([self.nodes(key) for key in keys], np.int64)
        return np.array(self[keys].node)  # type: ignore[index]

    def synsets(self, nodes: npt.ArrayLike) -> list[Synset]:
        """The synsets at these nodes, such as :meth:`lca` returns."""
        return [Synset(self, node) for node in np.asarray(nodes).ravel().tolist()]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Synset]:
        return (Synset(self, node) for node in range(len(self)))

    # Classes.

    def classes(self, under: Keys | None = None, minus: Keys | None = None) -> npt.NDArray[np.int64]:
        """The classes at or below ``under``, without those at or below ``minus``.

        Args:
            under: a key, or several in a list for what is under any of them; None for all classes.
            minus: likewise; None for nothing.

        Returns:
            int64, class indices in ascending order.

        Raises:
            UnknownSynsetError: no synset goes by such a key.
        """
        chosen = np.full(len(self), under is None)
        if under is not None:
            chosen[self._at_or_below(under)] = True
        if minus is not None:
            chosen[self._at_or_below(minus)] = False
        return np.flatnonzero(chosen[self.class_nodes])

    def name(self, class_index: SupportsIndex) -> str:
        """A display name that no other class of this hierarchy has: "tench", "crane (wading bird)".

        It is the first lemma; classes that would share it are told apart by the first lemma of their parents.

        Raises:
            UnknownSynsetError: there is no such class index.
        """
        return self.names[self._class_index(class_index)]

    @cached_property
    def names(self) -> list[str]:
        """:meth:`name` of every class, in class order."""
        return unique_names([Synset(self, node) for node in self.class_nodes.tolist()])

    def query(self, text: str) -> npt.NDArray[np.int64]:
        """The class indices that a query such as ``"dog.n.01 - poodle.n.01, 281"`` stands for: see graph/query.py."""
        from imgtool.wordnet.graph.query import query

        return query(self, text)

    def labelmap(self, targets: Mapping[str, Keys], other: Literal["drop", "other"] = "drop") -> LabelMap:
        """The classes gathered into targets: ``h.labelmap({"dog": "dog.n.01", "vehicle": "vehicle.n.01"})``.

        A class under several targets goes to the nearest: the one whose classes all lie within each of the others,
        which hold more. So ``{"dog": "dog.n.01", "poodle": "poodle.n.01"}`` are the poodles and all other dogs.

        Args:
            targets: name → a key, a list of keys, or a query (:meth:`query`). Labels follow this order.
            other: what becomes of the classes under none of the targets: ``"drop"``, label -1, or ``"other"``, a last
                target of this name, if there are such classes.

        Raises:
            UnknownSynsetError: no synset goes by such a key.
            InputError: none of a class's targets is the nearest (it names class and targets), or one has no class left.
        """
        return labelmap(self, targets, other)

    # Looking.

    def draw(self, under: Key, values: Any = None, format: str = "text", max_depth: int | None = None) -> str:
        """What is at or below a synset as text, SVG or DOT: see :func:`imgtool.wordnet.graph.drawing.draw`."""
        from imgtool.wordnet.graph.drawing import draw

        return draw(self, under, values, format, max_depth)

    def __repr__(self) -> str:
        return f"<Hierarchy of {len(self):,} synsets, {self.num_classes:,} of them classes>"

    def _at_or_below(self, keys: Keys) -> npt.NDArray[np.integer]:
        several = keys if isinstance(keys, (list, tuple)) else [keys]
        return self.dag.down([self[key].node for key in several])

    def _lookup(self, key: object) -> list[int]:
        """The nodes that a key may mean."""
        if isinstance(key, Synset) and key.hierarchy is self:
            return [key.node]
        name = _name(key)
        if isinstance(name, str):
            return self._nodes(rows_of(name))
        try:
            return [int(self.class_nodes[self._class_index(name)])]
        except UnknownSynsetError:
            return []

    def _nodes(self, rows: Sequence[int]) -> list[int]:
        """The nodes of those rows that are in this hierarchy."""
        here, nodes = self._row_numbers, []
        for row in rows:
            node = bisect_left(here, row)
            if node < len(here) and here[node] == row:
                nodes.append(node)
        return nodes

    @cached_property
    def _row_numbers(self) -> memoryview:
        return self.rows.data  # single numbers come faster from it than from the array

    def _class_index(self, key: object) -> int:
        try:
            index = operator.index(key)  # type: ignore[arg-type]
        except TypeError:
            index = -1
        if isinstance(key, bool) or not 0 <= index < self.num_classes:
            raise no_class(self, key)
        return index


def _name(key: object) -> object:
    """A synset's wnid; any other key as it is."""
    if isinstance(key, (str, int)):  # the usual ones first: to ask for NLTK's takes longer than the rest of a lookup
        return key
    if isinstance(key, Synset):
        return key.wnid
    return f"{key.pos()}{key.offset():08d}" if isinstance(key, NltkSynset) else key
