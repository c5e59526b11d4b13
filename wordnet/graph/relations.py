"""What a hierarchy says of pairs of its synsets. similarity.py states the conventions and does the work."""

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
from imgtool.wordnet.graph.types import Key, Many, SynsetGraph


class Relations:
    """The part of :class:`Hierarchy` that relates synsets: for one pair, for arrays, for all pairs of classes."""

    dag: Dag
    _kept: dict[str, npt.NDArray[Any]]

    @property
    def _whole(self) -> SynsetGraph:
        return cast(SynsetGraph, self)  # nothing else has this base

    @property
    def depths(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """int32 [nodes] twice: edges on the shortest and on the longest path from the root, which has 0."""
        return self.dag.depths

    @property
    def heights(self) -> npt.NDArray[np.int32]:
        """int32 [nodes]: edges on the longest way down to a synset of this hierarchy without children; these have 0."""
        return self.dag.heights

    @cached_property
    def leaves(self) -> npt.NDArray[np.int64]:
        """int64, ascending: the nodes without children. But for "full", they are all classes."""
        return np.flatnonzero(self.heights == 0)

    def ancestors(self, keys: Key | Many) -> npt.NDArray[np.int64]:
        """int64: the nodes above any of these synsets, these left out, nearest first. :meth:`synsets` makes synsets."""
        return self._beyond(keys, self.dag.up)

    def descendants(self, keys: Key | Many) -> npt.NDArray[np.int64]:
        """int64: the nodes below any of these synsets, these left out, nearest first."""
        return self._beyond(keys, self.dag.down)

    def _beyond(self, keys: Key | Many, walk: Callable[[Any], npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
        start = np.unique(self._whole.nodes(keys).ravel())
        return walk(start)[len(start) :].astype(np.int64, copy=False)

    @overload
    def is_a(self, a: Many, b: Key | Many) -> npt.NDArray[np.bool_]: ...
    @overload
    def is_a(self, a: Key, b: Many) -> npt.NDArray[np.bool_]: ...
    @overload
    def is_a(self, a: Key, b: Key) -> bool: ...
    def is_a(self, a: Key | Many, b: Key | Many) -> bool | npt.NDArray[np.bool_]:
        """Whether a is a kind, or an instance, of b. Every synset is a kind of itself.

        Args:
            a, b: what :meth:`nodes` takes; of several, shapes are broadcast against each other.

        Returns:
            bool, or bool of the common shape.

        Raises:
            UnknownSynsetError: no synset goes by such a key.
        """
        return self._of_pairs(similarity.is_a, a, b)

    @overload
    def lca(self, a: Many, b: Key | Many, by: By = "depth") -> npt.NDArray[np.int64]: ...
    @overload
    def lca(self, a: Key, b: Many, by: By = "depth") -> npt.NDArray[np.int64]: ...
    @overload
    def lca(self, a: Key, b: Key, by: By = "depth") -> Synset: ...
    def lca(self, a: Key | Many, b: Key | Many, by: By = "depth") -> Synset | npt.NDArray[np.int64]:
        """The lowest common ancestor: the deepest, as in NLTK, or (``by="height"``) the one of least height.

        Args, raises: as :meth:`is_a`; InputError for another ``by``.

        Returns:
            the synset; of several pairs the nodes, int64 of the common shape: ``h.heights[h.lca(y, p, "height")]``.
        """
        nodes = self._of_pairs(similarity.lca, a, b, by)
        return nodes if isinstance(nodes, np.ndarray) else Synset(self._whole, nodes)

    @overload
    def distance(self, a: Many, b: Key | Many) -> npt.NDArray[np.int64]: ...
    @overload
    def distance(self, a: Key, b: Many) -> npt.NDArray[np.int64]: ...
    @overload
    def distance(self, a: Key, b: Key) -> int: ...
    def distance(self, a: Key | Many, b: Key | Many) -> int | npt.NDArray[np.int64]:
        """Edges on the shortest way from a up to a common ancestor and down to b. Arguments as :meth:`is_a`; int64."""
        return self._of_pairs(similarity.distance, a, b)

    @overload
    def path(self, a: Many, b: Key | Many) -> npt.NDArray[np.float64]: ...
    @overload
    def path(self, a: Key, b: Many) -> npt.NDArray[np.float64]: ...
    @overload
    def path(self, a: Key, b: Key) -> float: ...
    def path(self, a: Key | Many, b: Key | Many) -> float | npt.NDArray[np.float64]:
        """NLTK's path_similarity, ``1 / (1 + distance)``. Arguments as :meth:`is_a`; float64."""
        return self._of_pairs(similarity.path, a, b)

    @overload
    def wup(self, a: Many, b: Key | Many) -> npt.NDArray[np.float64]: ...
    @overload
    def wup(self, a: Key, b: Many) -> npt.NDArray[np.float64]: ...
    @overload
    def wup(self, a: Key, b: Key) -> float: ...
    def wup(self, a: Key | Many, b: Key | Many) -> float | npt.NDArray[np.float64]:
        """Wu and Palmer's similarity as NLTK's wup_similarity has it. Arguments as :meth:`is_a`; float64."""
        return self._of_pairs(similarity.wup, a, b)

    # Matrices over the classes. They are kept, and cannot be written to.

    def class_matrix(self, kind: str) -> npt.NDArray[Any]:
        """A relation between each two classes, [classes, classes].

        Args:
            kind: the conventions are those of :meth:`lca`, :meth:`distance`, :meth:`path` and :meth:`wup`.

                ================  =======  ======================================================================
                ``"lca_height"``  int16    height of the lowest common ancestor by height: severity of a mistake
                ``"lca_depth"``   int16    (longest) depth of the lowest common ancestor by depth
                ``"distance"``    int16    edges of the shortest way between them
                ``"path"``        float32  path similarity
                ``"wup"``         float32  Wu and Palmer's similarity
                ================  =======  ======================================================================

        A matrix of 22k classes takes 1 GB as int16 and 2 GB as float32.

        Raises:
            InputError: another kind, or a hierarchy without classes.
        """
        return self.kept(f"classes' {kind}", lambda: similarity.class_matrix(self._whole, kind))

    def lca_matrix(self, by: By = "depth") -> npt.NDArray[np.int32]:
        """int32 [classes, classes]: the node that is the lowest common ancestor of each two classes."""
        return self.kept(f"lca by {by}", lambda: similarity.lca_matrix(self._whole, by))

    def ancestor_matrix(self) -> npt.NDArray[np.bool_]:
        """bool [classes, nodes]: the class is at or below the node."""
        return self.kept("ancestors", lambda: similarity.ancestor_matrix(self._whole))

    def kept(self, name: str, make: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """What ``make()`` returned when this name was first asked for: for costly arrays that follow from the graph."""
        if name not in self._kept:
            self._kept[name] = make()
            self._kept[name].setflags(write=False)
        return self._kept[name]

    def _of_pairs(self, relation: Callable[..., npt.NDArray[Any]], a: Key | Many, b: Key | Many, *args: Any) -> Any:
        """``relation(h, nodes, nodes, *args)`` of the pairs: an array, or a plain value for a pair of single keys."""
        nodes_a, nodes_b = np.broadcast_arrays(self._whole.nodes(a), self._whole.nodes(b))
        result = relation(self._whole, nodes_a.ravel(), nodes_b.ravel(), *args).reshape(nodes_a.shape)
        return result if result.ndim else result.item()
