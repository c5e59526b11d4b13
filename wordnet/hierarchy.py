"""`Hierarchy` and `load`: WordNet's graph above a set of classes, and the class indices."""

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
from imgtool.wordnet.graph.dag import Dag, csr_positions
from imgtool.wordnet.graph.keys import not_a_class, rows_of, unknown_key
from imgtool.wordnet.graph.label_map import LabelMap, labelmap
from imgtool.wordnet.graph.names import unique_names
from imgtool.wordnet.graph.relations import Relations
from imgtool.wordnet.graph.synset import Synset
from imgtool.wordnet.graph.types import Key, KeyArray, Keys, NltkSynset
from imgtool.wordnet.tables.class_sets import NAMES, class_rows
from imgtool.wordnet.tables.morphology import base_forms
from imgtool.wordnet.tables.nouns import tables


def load(classes: str | os.PathLike[str] | Iterable[str] = "in1k") -> Hierarchy:
    """Returns the hierarchy of a set of classes: the classes and all of their ancestors.

    A class index is the position of a class among the sorted wnids.

    Args:
        classes: one of

            - `"in1k"`: the 1000 classes of ILSVRC2012;
            - `"in22k"`: the 21,841 classes of the full release of fall 2011 (fall11_whole.tar);
            - `"in12k"`: 11,821 of those;
            - `"in21k"`: the 10,450 classes of ImageNet-21K-P, the winter 2021 release as processed by Ridnik et al.
              ("ImageNet-21K Pretraining for the Masses", 2021, arXiv:2104.10972);
            - `"full"`: all 82,115 nouns, none of which is a class;
            - wnids, in any order;
            - the path of a data set made by `imgtool prepare`: its classes.

    Returns:
        The hierarchy. The hierarchy of a named set is made once and shared.

    Raises:
        UnknownSynsetError: some wnids are not in WordNet 3.0; the message lists them.
        InputError: `classes` is neither a name from the list above nor the path of a prepared data set, is empty, or
            contains a wnid twice.
        DatasetError: the class table of the data set cannot be read.
    """
    return _load(classes) if isinstance(classes, str) and classes in NAMES else Hierarchy(class_rows(classes))


@cache  # hierarchies are immutable, so they can be shared
def _load(name: str) -> Hierarchy:
    return Hierarchy(class_rows(name))


class Hierarchy(Relations):
    """A directed acyclic graph of synsets, some of which are classes. Create one with `load`.

    `h[key]` returns a `Synset`. A key is one of

    - a wnid: `"n02084071"`;
    - an NLTK name: `"dog.n.01"`, or with any other lemma of the synset, `"domestic_dog.n.01"`;
    - a lemma that exactly one synset of this hierarchy has: `"domestic dog"`;
    - a class index;
    - a `Synset` of any hierarchy, or a synset of NLTK.

    Any other key raises `UnknownSynsetError`, which is a `KeyError`; its message suggests similar keys. `key in h` is
    true if `h[key]` returns a synset. `len(h)` and iteration cover all synsets, in wnid order.

    Attributes:
        dag: the graph, with hypernym and instance pointers as edges. A node is a synset's position in wnid order.
        is_instance: bool [edges], parallel to `dag.parents`: whether the edge is an instance pointer.
        rows: int32 [nodes]: the row of each node in `imgtool.wordnet.tables.nouns`.
        class_nodes: int64 [classes]: the node of each class.
        class_of_node: int64 [nodes]: the class index of each node, -1 where the node is not a class.
    """

    def __init__(self, classes: npt.NDArray[np.integer] | None) -> None:
        """Builds the hierarchy of some classes.

        Args:
            classes: the classes' rows in the noun tables, ascending; None for all nouns and no classes.
        """
        self.tables = tables()
        indptr, parents = self.tables.parent_indptr, self.tables.parent
        everything = Dag(indptr, parents)
        if classes is None:
            self.rows = np.arange(len(everything), dtype=np.int32)
            self.dag, self.is_instance = everything, self.tables.parent_is_instance
        else:
            self.rows = np.sort(everything.up(classes)).astype(np.int32)
            edges = csr_positions(indptr, self.rows)
            counts = indptr[self.rows + 1] - indptr[self.rows]
            self.dag = Dag(np.append(0, np.cumsum(counts)), np.searchsorted(self.rows, parents[edges]))
            self.is_instance = self.tables.parent_is_instance[edges]
        self.class_nodes = np.searchsorted(self.rows, () if classes is None else classes)
        self.class_of_node = np.full(len(self.rows), -1, np.int64)
        self.class_of_node[self.class_nodes] = np.arange(len(self.class_nodes))
        self._cache: dict[str, npt.NDArray[Any]] = {}

    def __reduce__(self) -> tuple[type[Hierarchy], tuple[npt.NDArray[np.integer] | None]]:
        return Hierarchy, (self.rows[self.class_nodes] if self.num_classes else None,)  # rebuilt, not pickled

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 for `"full"`."""
        return len(self.class_nodes)

    @cached_property
    def wnids(self) -> list[str]:
        """The sorted wnids of the classes: the position is the class index. Empty for `"full"`."""
        return [self.tables.wnid(row) for row in self.rows[self.class_nodes].tolist()]

    # Synsets.

    def __getitem__(self, key: Key) -> Synset:
        nodes = self._lookup(key)
        if len(nodes) != 1:
            raise unknown_key(self, _name(key), nodes)
        return Synset(self, nodes[0])

    def __contains__(self, key: object) -> bool:
        return len(self._lookup(key)) == 1

    def find(self, word: str) -> list[Synset]:
        """Finds the synsets of this hierarchy that have a word, or one of its base forms ("poodles"), as a lemma.

        The result is that of NLTK's `synsets(word, "n")`, restricted to this hierarchy. Base forms are those of NLTK's
        morphy.

        Args:
            word: case does not matter, and neither do spaces or underscores between words.

        Returns:
            Synsets in WordNet's sense order, those of the word itself before those of its base forms; may be empty.
        """
        rows = [row for form in base_forms(word) for row in self.tables.senses(form)]
        return [Synset(self, node) for node in self._nodes(list(dict.fromkeys(rows)))]

    def nodes(self, keys: Key | KeyArray) -> npt.NDArray[np.int64]:
        """Returns the nodes of one key or of several.

        Args:
            keys: a key, a list or tuple of keys (which may be nested), or an array of class indices of any shape.

        Returns:
            int64 nodes in the shape of `keys`; of shape [] for a single key.

        Raises:
            UnknownSynsetError: a key matches no synset, or several.
        """
        if isinstance(keys, np.ndarray) and keys.dtype.kind in "iu":
            wrong = keys[(keys < 0) | (keys >= self.num_classes)]
            if wrong.size:
                raise not_a_class(self, int(wrong.flat[0]))
            return np.asarray(self.class_nodes[keys])
        if isinstance(keys, (list, tuple)) or (isinstance(keys, np.ndarray) and keys.ndim):
            return np.array([self.nodes(key) for key in keys], np.int64)
        return np.array(self[keys].node)  # type: ignore[index]

    def synsets(self, nodes: npt.ArrayLike) -> list[Synset]:
        """Returns the synsets at some nodes, for example at those that `lca` returns."""
        return [Synset(self, node) for node in np.asarray(nodes).ravel().tolist()]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Synset]:
        return (Synset(self, node) for node in range(len(self)))

    # Classes.

    def classes(self, under: Keys | None = None, minus: Keys | None = None) -> npt.NDArray[np.int64]:
        """Returns the classes at or below `under`, without those at or below `minus`.

        Args:
            under: a key, or a list of keys for the classes under any of them; None for all classes.
            minus: a key or a list of keys; None to exclude nothing.

        Returns:
            int64 class indices in ascending order.

        Raises:
            UnknownSynsetError: a key matches no synset, or several.
        """
        chosen = np.full(len(self), under is None)
        if under is not None:
            chosen[self._at_or_below(under)] = True
        if minus is not None:
            chosen[self._at_or_below(minus)] = False
        return np.flatnonzero(chosen[self.class_nodes])

    def name(self, class_index: SupportsIndex) -> str:
        """Returns a display name that is unique among the classes: "tench", "crane (wading bird)".

        It is the first lemma. Where several classes have the same first lemma, the first lemma of the parent is added.

        Raises:
            UnknownSynsetError: `class_index` is not a class index of this hierarchy.
        """
        return self.names[self._class_index(class_index)]

    @cached_property
    def names(self) -> list[str]:
        """The display name (see `name`) of each class, in class order."""
        return unique_names([Synset(self, node) for node in self.class_nodes.tolist()])

    def query(self, text: str) -> npt.NDArray[np.int64]:
        """Evaluates a class query, such as `"dog.n.01 - poodle.n.01, 281"`.

        A query combines keys with `+` or `|` (union), `&` (intersection), `-` (difference), `,` (union of whole
        queries) and parentheses; `imgtool.wordnet.graph.query` defines the grammar. A key stands for the classes at or
        below its synset.

        Returns:
            int64 class indices in ascending order; may be empty.

        Raises:
            UnknownSynsetError: a key matches no synset, or several; the message gives the column.
            InputError: a syntax error; the message gives the column.
        """
        from imgtool.wordnet.graph.query import query

        return query(self, text)

    def labelmap(self, targets: Mapping[str, Keys], other: Literal["drop", "other"] = "drop") -> LabelMap:
        """Maps the classes to the targets of another task: `h.labelmap({"dog": "dog.n.01", "car": "car.n.01"})`.

        A class under several targets is mapped to the most specific one, whose classes are a proper subset of those of
        each of the others. So `{"dog": "dog.n.01", "poodle": "poodle.n.01"}` separates poodles from all other dogs.

        Args:
            targets: maps the name of each target to a key, a list of keys, or a query (see `query`). The targets'
                labels follow the order of this mapping.
            other: what happens to classes under none of the targets. `"drop"` maps them to label -1; `"other"` adds a
                last target of that name for them, if there are any.

        Returns:
            The label map.

        Raises:
            UnknownSynsetError: a key matches no synset, or several.
            InputError: a class is under several targets none of which is the most specific (the message names the class
                and the targets), or a target is left without classes.
        """
        return labelmap(self, targets, other)

    # Drawing.

    def draw(self, under: Key, values: Any = None, format: str = "text", max_depth: int | None = None) -> str:
        """Draws the synsets at or below a synset.

        Args:
            under: the key of the synset at the top.
            values: one number per class to show and to colour the classes by, as floats [classes] or as a mapping from
                keys of classes. A synset above the classes gets the mean over the classes at or below it that have a
                value, each counted once. None and NaN mean no value.
            format: `"text"`, `"svg"` (self-contained) or `"dot"` (for Graphviz).
            max_depth: the number of levels to draw below the top, by the shortest path; None for all.

        Returns:
            The drawing as text that ends in a newline; see `imgtool.wordnet.graph.drawing` for the formats.

        Raises:
            UnknownSynsetError: a key matches no synset, or several.
            InputError: an unknown format, values of the wrong shape, or a value for a synset that is not a class.
        """
        from imgtool.wordnet.graph.drawing import draw

        return draw(self, under, values, format, max_depth)

    def __repr__(self) -> str:
        return f"<Hierarchy of {len(self):,} synsets, {self.num_classes:,} of them classes>"

    def _at_or_below(self, keys: Keys) -> npt.NDArray[np.integer]:
        several = keys if isinstance(keys, (list, tuple)) else [keys]
        return self.dag.down([self[key].node for key in several])

    def _lookup(self, key: object) -> list[int]:
        """Returns the nodes that a key matches."""
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
        """Returns the nodes of those table rows that are in this hierarchy."""
        here, nodes = self._row_numbers, []
        for row in rows:
            node = bisect_left(here, row)
            if node < len(here) and here[node] == row:
                nodes.append(node)
        return nodes

    @cached_property
    def _row_numbers(self) -> memoryview:
        return self.rows.data  # reading single numbers is faster from it than from the array

    def _class_index(self, key: object) -> int:
        try:
            index = operator.index(key)  # type: ignore[arg-type]
        except TypeError:
            index = -1
        if isinstance(key, bool) or not 0 <= index < self.num_classes:
            raise not_a_class(self, key)
        return index


def _name(key: object) -> object:
    """Returns the wnid of a synset, and any other key unchanged."""
    if isinstance(
        key, (str, int)
    ):  # first, because the check for NLTK's synsets takes longer than the rest of a lookup
        return key
    if isinstance(key, Synset):
        return key.wnid
    return f"{key.pos()}{key.offset():08d}" if isinstance(key, NltkSynset) else key
