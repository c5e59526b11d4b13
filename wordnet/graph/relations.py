"""The relations between synsets that a hierarchy offers. similarity.py states the conventions and computes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, cast, overload

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.graph import similarity
from imgtool.wordnet.graph.dag import Dag
from imgtool.wordnet.graph.similarity import By
from imgtool.wordnet.graph.synset import Synset
from imgtool.wordnet.graph.types import Key, KeyArray, SynsetGraph


class Relations:
    """The methods of `Hierarchy` that relate synsets: a pair, arrays of pairs, or all pairs of classes."""

    dag: Dag
    _cache: dict[str, npt.NDArray[Any]]

    @property
    def _graph(self) -> SynsetGraph:
        return cast(SynsetGraph, self)  # Hierarchy is the only subclass

    @property
    def depths(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Two int32 [nodes]: the edges on the shortest and on the longest path from the root; 0 for the root."""
        return self.dag.depths

    @property
    def heights(self) -> npt.NDArray[np.int32]:
        """int32 [nodes]: the number of edges on the longest path down to a leaf; 0 for a leaf."""
        return self.dag.heights

    @cached_property
    def leaves(self) -> npt.NDArray[np.int64]:
        """int64, ascending: the nodes without children. All of them are classes, except in `"full"`."""
        return np.flatnonzero(self.heights == 0)

    def ancestors(self, keys: Key | KeyArray) -> npt.NDArray[np.int64]:
        """Returns the ancestors of one synset or of several, without these synsets themselves.

        Args:
            keys: the synsets, as for `nodes`.

        Returns:
            int64 nodes, nearest first; `synsets` converts them to synsets.

        Raises:
            UnknownSynsetError: a key matches no synset, or several.
        """
        return self._beyond(keys, self.dag.up)

    def descendants(self, keys: Key | KeyArray) -> npt.NDArray[np.int64]:
        """Returns the descendants of one synset or of several, without these synsets themselves.

        Args:
            keys: the synsets, as for `nodes`.

        Returns:
            int64 nodes, nearest first; `synsets` converts them to synsets.

        Raises:
            UnknownSynsetError: a key matches no synset, or several.
        """
        return self._beyond(keys, self.dag.down)

    def _beyond(self, keys: Key | KeyArray, walk: Callable[[Any], npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
        start = np.unique(self._graph.nodes(keys).ravel())
        return walk(start)[len(start) :].astype(np.int64, copy=False)

    @overload
    def is_a(self, a: KeyArray, b: Key | KeyArray) -> npt.NDArray[np.bool_]: ...
    @overload
    def is_a(self, a: Key, b: KeyArray) -> npt.NDArray[np.bool_]: ...
    @overload
    def is_a(self, a: Key, b: Key) -> bool: ...
    def is_a(self, a: Key | KeyArray, b: Key | KeyArray) -> bool | npt.NDArray[np.bool_]:
        """Tells whether a is a kind or an instance of b. Every synset is a kind of itself.

        Args:
            a: one synset or several, as for `nodes`.
            b: likewise; the shapes of `a` and `b` are broadcast against each other.

        Returns:
            A bool; for several pairs, bool of the broadcast shape.

        Raises:
            UnknownSynsetError: a key matches no synset, or several.
        """
        return self._of_pairs(similarity.is_a, a, b)

    @overload
    def lca(self, a: KeyArray, b: Key | KeyArray, by: By = "depth") -> npt.NDArray[np.int64]: ...
    @overload
    def lca(self, a: Key, b: KeyArray, by: By = "depth") -> npt.NDArray[np.int64]: ...
    @overload
    def lca(self, a: Key, b: Key, by: By = "depth") -> Synset: ...
    def lca(self, a: Key | KeyArray, b: Key | KeyArray, by: By = "depth") -> Synset | npt.NDArray[np.int64]:
        """Returns the lowest common ancestor. `imgtool.wordnet.graph.similarity` states how ties are broken.

        Args:
            a: one synset or several, as for `nodes`.
            b: likewise; the shapes of `a` and `b` are broadcast against each other.
            by: `"depth"` for the common ancestor of greatest depth, as in NLTK; `"height"` for that of least height.

        Returns:
            A synset; for several pairs, int64 nodes of the broadcast shape, as for `h.heights[h.lca(y, p, "height")]`.

        Raises:
            UnknownSynsetError: a key matches no synset, or several.
            InputError: another `by`.
        """
        nodes = self._of_pairs(similarity.lca, a, b, by)
        return nodes if isinstance(nodes, np.ndarray) else Synset(self._graph, nodes)

    @overload
    def distance(self, a: KeyArray, b: Key | KeyArray) -> npt.NDArray[np.int64]: ...
    @overload
    def distance(self, a: Key, b: KeyArray) -> npt.NDArray[np.int64]: ...
    @overload
    def distance(self, a: Key, b: Key) -> int: ...
    def distance(self, a: Key | KeyArray, b: Key | KeyArray) -> int | npt.NDArray[np.int64]:
        """Returns the number of edges on the shortest path from a up to a common ancestor and down to b.

        Args:
            a: one synset or several, as for `nodes`.
            b: likewise; the shapes of `a` and `b` are broadcast against each other.

        Returns:
            An int; for several pairs, int64 of the broadcast shape.

        Raises:
            UnknownSynsetError: a key matches no synset, or several.
        """
        return self._of_pairs(similarity.distance, a, b)

    @overload
    def path(self, a: KeyArray, b: Key | KeyArray) -> npt.NDArray[np.float64]: ...
    @overload
    def path(self, a: Key, b: KeyArray) -> npt.NDArray[np.float64]: ...
    @overload
    def path(self, a: Key, b: Key) -> float: ...
    def path(self, a: Key | KeyArray, b: Key | KeyArray) -> float | npt.NDArray[np.float64]:
        """Returns the path similarity, `1 / (1 + distance)`, as NLTK's `path_similarity`.

        Args:
            a: one synset or several, as for `nodes`.
            b: likewise; the shapes of `a` and `b` are broadcast against each other.

        Returns:
            A float; for several pairs, float64 of the broadcast shape.

        Raises:
            UnknownSynsetError: a key matches no synset, or several.
        """
        return self._of_pairs(similarity.path, a, b)

    @overload
    def wup(self, a: KeyArray, b: Key | KeyArray) -> npt.NDArray[np.float64]: ...
    @overload
    def wup(self, a: Key, b: KeyArray) -> npt.NDArray[np.float64]: ...
    @overload
    def wup(self, a: Key, b: Key) -> float: ...
    def wup(self, a: Key | KeyArray, b: Key | KeyArray) -> float | npt.NDArray[np.float64]:
        """Returns Wu and Palmer's similarity, as NLTK's `wup_similarity`.

        Args:
            a: one synset or several, as for `nodes`.
            b: likewise; the shapes of `a` and `b` are broadcast against each other.

        Returns:
            A float; for several pairs, float64 of the broadcast shape.

        Raises:
            UnknownSynsetError: a key matches no synset, or several.
        """
        return self._of_pairs(similarity.wup, a, b)

    # Matrices over the classes. They are cached and read-only.

    def class_matrix(self, kind: str) -> npt.NDArray[Any]:
        """Returns a relation between all pairs of classes, as `lca`, `distance`, `path` and `wup` define it.

        A matrix of 22k classes takes 1 GB as int16 and 2 GB as float32.

        Args:
            kind: one of

                - `"lca_height"`, int16: the height of the lowest common ancestor by height, which is the severity of a
                  mistake;
                - `"lca_depth"`, int16: the depth, by the longest path, of the lowest common ancestor by depth;
                - `"distance"`, int16: the number of edges on the shortest path between the two;
                - `"path"`, float32: path similarity;
                - `"wup"`, float32: Wu and Palmer's similarity.

        Returns:
            [classes, classes], read-only, cached in the hierarchy.

        Raises:
            InputError: an unknown kind, or a hierarchy without classes.
        """
        return self.cached(f"classes' {kind}", lambda: similarity.class_matrix(self._graph, kind))

    def lca_matrix(self, by: By = "depth") -> npt.NDArray[np.int32]:
        """Returns int32 [classes, classes], read-only: the lowest common ancestor (node) of each pair of classes."""
        return self.cached(f"lca by {by}", lambda: similarity.lca_matrix(self._graph, by))

    def ancestor_matrix(self) -> npt.NDArray[np.bool_]:
        """Returns bool [classes, nodes], read-only: whether the class is at or below the node."""
        return self.cached("ancestors", lambda: similarity.ancestor_matrix(self._graph))

    def cached(self, name: str, make: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Returns the array of this name from the cache, calling `make()` if it is not there yet."""
        if name not in self._cache:
            self._cache[name] = make()
            self._cache[name].setflags(write=False)
        return self._cache[name]

    def _of_pairs(
        self, relation: Callable[..., npt.NDArray[Any]], a: Key | KeyArray, b: Key | KeyArray, *args: Any
    ) -> Any:
        """Returns `relation(h, nodes, nodes, *args)`: an array, or a plain value for a pair of single keys."""
        nodes_a, nodes_b = np.broadcast_arrays(self._graph.nodes(a), self._graph.nodes(b))
        result = relation(self._graph, nodes_a.ravel(), nodes_b.ravel(), *args).reshape(nodes_a.shape)
        return result if result.ndim else result.item()
