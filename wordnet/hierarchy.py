"""The hierarchy: WordNet's graph over a data set's classes, and the class indices that go with it."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from typing import Protocol, SupportsIndex, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.dag import Dag, gather
from imgtool.wordnet.errors import InputError, UnknownSynsetError
from imgtool.wordnet.keys import listed, no_class, rows_of, unknown
from imgtool.wordnet.names import unique_names
from imgtool.wordnet.orders import ilsvrc2012_wnids
from imgtool.wordnet.synset import Synset
from imgtool.wordnet.tables import tables


@runtime_checkable
class NltkSynset(Protocol):
    """What is asked of NLTK's Synset objects, so that they can be keys without importing NLTK."""

    def pos(self) -> str: ...
    def offset(self) -> int: ...


Key: TypeAlias = str | SupportsIndex | Synset | NltkSynset
Keys: TypeAlias = Key | list[Key] | tuple[Key, ...]


def load(classes: str | Iterable[str] = "in1k") -> Hierarchy:
    """The hierarchy over a set of classes: the classes and everything above them.

    Args:
        classes: ``"in1k"``, the 1000 classes of ILSVRC2012; ``"full"``, all 82,115 nouns, none of them a class;
            or the wnids of the classes, in any order. Class indices follow the sorted wnids.

    Raises:
        UnknownSynsetError: some of the wnids are not WordNet 3.0's; it names them.
        InputError: another word than these two, no wnids at all, or one twice.
    """
    if not isinstance(classes, str):
        return Hierarchy(classes)
    if classes not in ("in1k", "full"):
        raise InputError(f"no class set {classes!r}: there are 'in1k' and 'full', or give a list of wnids")
    return _load(classes)


@cache  # hierarchies do not change, so all may share them
def _load(classes: str) -> Hierarchy:
    return Hierarchy(ilsvrc2012_wnids() if classes == "in1k" else None)


class Hierarchy:
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
        wnids: the classes' wnids, sorted: position = class index. Empty for "full".
        dag: the graph, hypernym and instance pointers alike. Its nodes are positions in wnid order.
        is_instance: bool [edges], parallel to ``dag.parents``: the edge is an instance pointer.
        rows: int32 [nodes]: each node's row in :mod:`imgtool.wordnet.tables`.
        class_nodes: int64 [classes]: the node of each class.
        class_of_node: int64 [nodes]: the class index, -1 where the node is not a class.
    """

    def __init__(self, wnids: Iterable[str] | None) -> None:
        """Over these classes, as :func:`load`; None for all nouns and no classes."""
        self.tables = tables()
        indptr, parents = self.tables.parent_indptr, self.tables.parent
        everything = Dag(indptr, parents)
        self.wnids: list[str] = [] if wnids is None else sorted(wnids)
        if wnids is None:
            class_rows: list[int] = []
            self.rows = np.arange(len(everything), dtype=np.int32)
            self.dag, self.is_instance = everything, self.tables.parent_is_instance
        else:
            class_rows = _class_rows(self.wnids)
            self.rows = np.sort(everything.up(class_rows)).astype(np.int32)
            edges = gather(indptr, self.rows)
            counts = indptr[self.rows + 1] - indptr[self.rows]
            self.dag = Dag(np.append(0, np.cumsum(counts)), np.searchsorted(self.rows, parents[edges]))
            self.is_instance = self.tables.parent_is_instance[edges]
        self.class_nodes = np.searchsorted(self.rows, class_rows)
        self.class_of_node = np.full(len(self.rows), -1, np.int64)
        self.class_of_node[self.class_nodes] = np.arange(len(self.wnids))

    @property
    def num_classes(self) -> int:
        return len(self.wnids)

    # Synsets.

    def __getitem__(self, key: Key) -> Synset:
        nodes = self._lookup(key)
        if len(nodes) != 1:
            raise unknown(self, _name(key), nodes)
        return Synset(self, nodes[0])

    def __contains__(self, key: object) -> bool:
        return len(self._lookup(key)) == 1

    def find(self, lemma: str) -> list[Synset]:
        """The synsets of this hierarchy that have exactly this lemma, in WordNet's sense order; perhaps none.

        Case does not matter, nor whether words are joined by spaces or underscores.
        """
        return [Synset(self, node) for node in self._nodes(self.tables.senses(lemma))]

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

    # Relations.

    def is_a(self, a: Key, b: Key) -> bool:
        """Whether a is a kind, or an instance, of b. Every synset is a kind of itself.

        Raises:
            UnknownSynsetError: no synset goes by such a key.
        """
        lower, upper = self[a].node, self[b].node
        return bool((self.dag.up([lower]) == upper).any())

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
        nodes = np.searchsorted(self.rows, np.asarray(rows, np.int32)).tolist()
        return [node for node, row in zip(nodes, rows, strict=True) if node < len(self) and self.rows[node] == row]

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
    if isinstance(key, Synset):
        return key.wnid
    return f"{key.pos()}{key.offset():08d}" if isinstance(key, NltkSynset) else key


def _class_rows(wnids: list[str]) -> list[int]:
    if not wnids:
        raise InputError("no classes: give at least one wnid")
    rows = {wnid: tables().row(wnid) for wnid in wnids}
    bad = [wnid for wnid, row in rows.items() if row is None]
    if bad:
        raise UnknownSynsetError(f"{len(bad):,} of {len(rows):,} classes are not nouns of WordNet 3.0: {listed(bad)}")
    twice = [wnid for wnid, count in Counter(wnids).items() if count > 1]
    if twice:
        raise InputError(f"classes given twice: {listed(twice)}")
    return [row for row in rows.values() if row is not None]
