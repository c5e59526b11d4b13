"""`Synset`: a synset as a node of a hierarchy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import ImgtoolError
from imgtool.wordnet.graph.types import SynsetGraph
from imgtool.wordnet.tables.nouns import FIRST_LEXNAME, LEXNAMES


class Synset:
    """An immutable view of one node of a `Hierarchy`. Get one with `h[key]`.

    Synsets are equal if they are the same WordNet synset, even in different hierarchies.

    `parents` and `children` follow WordNet's hypernym pointers (`@`), `instance_of` and `instances` its instance
    pointers (`@i`: the Sun is an instance of star). All other relations, from `ancestors` to `classes`, follow both
    kinds, as NLTK's paths and depths do. ImageNet-1k's hierarchy has no instance pointers.
    """

    __slots__ = ("_hierarchy", "_node")

    def __init__(self, hierarchy: SynsetGraph, node: int) -> None:
        self._hierarchy = hierarchy
        self._node = node

    @property
    def hierarchy(self) -> SynsetGraph:
        """The hierarchy that the synset is a node of."""
        return self._hierarchy

    @property
    def node(self) -> int:
        """The position among the hierarchy's synsets in wnid order. It is not a class index."""
        return self._node

    @property
    def _row(self) -> int:
        return int(self._hierarchy.rows[self._node])

    # What WordNet says about the synset.

    @property
    def wnid(self) -> str:
        """The wnid, `"n02084071"`: n and the offset in WordNet 3.0's data.noun."""
        return self._hierarchy.tables.wnid(self._row)

    @property
    def name(self) -> str:
        """The NLTK name, `"dog.n.01"`. `Hierarchy.name` gives names for display."""
        return self._hierarchy.tables.name(self._row)

    @property
    def lemmas(self) -> tuple[str, ...]:
        """The lemmas, in WordNet's order and with spaces: `("dog", "domestic dog", "Canis familiaris")`."""
        return self._hierarchy.tables.lemmas(self._row)

    @property
    def gloss(self) -> str:
        """The whole gloss, as in ImageNet's gloss.txt: the definition, then examples in quotes."""
        return self._hierarchy.tables.gloss(self._row)

    @property
    def definition(self) -> str:
        """The gloss without its examples."""
        return re.sub(r'".*?"', "", self.gloss).strip("; ")

    @property
    def examples(self) -> tuple[str, ...]:
        """The examples of use in the gloss; often none."""
        return tuple(re.findall(r'"([^"]*)"', self.gloss))

    @property
    def lexname(self) -> str:
        """The name of WordNet's lexicographer file, `"noun.animal"`."""
        return LEXNAMES[self._hierarchy.tables.lexname[self._row] - FIRST_LEXNAME]

    # Neighbours in this hierarchy.

    @property
    def parents(self) -> tuple[Synset, ...]:
        """The hypernyms, in WordNet's order."""
        return self._above(instance=False)

    @property
    def instance_of(self) -> tuple[Synset, ...]:
        """The instance hypernyms, in WordNet's order."""
        return self._above(instance=True)

    @property
    def children(self) -> tuple[Synset, ...]:
        """The hyponyms, in wnid order."""
        return self._below(instance=False)

    @property
    def instances(self) -> tuple[Synset, ...]:
        """The instance hyponyms, in wnid order."""
        return self._below(instance=True)

    # All ancestors and descendants in this hierarchy.

    def ancestors(self) -> list[Synset]:
        """Returns the synsets above this one, each once, nearest first."""
        return self._others(self._hierarchy.dag.above(self._node)[1:])

    def descendants(self) -> list[Synset]:
        """Returns the synsets below this one, each once, nearest first."""
        return self._others(self._hierarchy.dag.down([self._node])[1:])

    def paths(self) -> list[tuple[Synset, ...]]:
        """Returns every path from a root to this synset: the root first, this synset last."""
        return [tuple(self._others(path)) for path in self._hierarchy.dag.paths(self._node)]

    @property
    def path(self) -> tuple[Synset, ...]:
        """The longest of `paths`, from the root to this synset.

        Of equally long paths it is the one that at every step up takes the parent that WordNet lists first.
        """
        return tuple(self._others(self._hierarchy.dag.longest_path(self._node)))

    @property
    def depth(self) -> tuple[int, int]:
        """The number of edges on the shortest and on the longest path from a root; `(0, 0)` for a root."""
        low, high = self._hierarchy.dag.depths
        return int(low[self._node]), int(high[self._node])

    @property
    def height(self) -> int:
        """The number of edges on the longest path down, in this hierarchy, to a leaf; 0 for a leaf."""
        return int(self._hierarchy.heights[self._node])

    def leaves(self) -> list[Synset]:
        """Returns the synsets without children at or below this one, nearest first."""
        nodes = self._hierarchy.dag.down([self._node])
        return self._others(nodes[self._hierarchy.heights[nodes] == 0])

    # Classes.

    @property
    def class_index(self) -> int | None:
        """The class index if this synset is a class, else None."""
        index = int(self._hierarchy.class_of_node[self._node])
        return None if index < 0 else index

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """The class indices at or below this synset, int64, sorted: `h.classes(under=self)`."""
        return self._hierarchy.classes(under=self)

    def nltk(self) -> Any:
        """Returns NLTK's object for the same synset.

        Raises:
            ImgtoolError: NLTK or its WordNet 3.0 corpus is not installed.
        """
        try:
            from nltk.corpus import wordnet

            synset = wordnet.synset_from_pos_and_offset("n", int(self.wnid[1:]))
        except ImportError as error:
            raise ImgtoolError("NLTK is not installed: pip install 'imgtool[nltk]'") from error
        except LookupError as error:
            raise ImgtoolError("NLTK has no WordNet corpus: python -m nltk.downloader wordnet") from error
        if synset is None or synset.name() != self.name:
            raise ImgtoolError(
                f"NLTK's corpus is not WordNet 3.0: its noun at {self.wnid} is {synset}, not {self.name}"
            )
        return synset

    def _above(self, instance: bool) -> tuple[Synset, ...]:
        dag, is_instance = self._hierarchy.dag, self._hierarchy.is_instance
        edges = dag.edges(self._node)
        return tuple(self._others(dag.parents[edges][is_instance[edges] == instance]))

    def _below(self, instance: bool) -> tuple[Synset, ...]:
        dag, is_instance = self._hierarchy.dag, self._hierarchy.is_instance
        edges = dag.edges_down(self._node)
        return tuple(self._others(dag.child[edges[is_instance[edges] == instance]]))

    def _others(self, nodes: npt.NDArray[np.integer] | Sequence[int]) -> list[Synset]:
        h = self._hierarchy
        return [Synset(h, node) for node in (nodes.tolist() if isinstance(nodes, np.ndarray) else nodes)]

    def __repr__(self) -> str:
        return f"Synset({self.name!r}, {self.wnid!r})"

    def __eq__(self, other: object) -> bool:
        return self._row == other._row if isinstance(other, Synset) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._row)
