"""The synset hierarchy: a directed acyclic graph of WordNet 3.0's nouns, linked to class indices.

>>> from imgtool import wordnet
>>> h = wordnet.load()  # ImageNet-1k; or "in12k", "in21k", "in22k", "full", a list of wnids, a data set's path
>>> h["dog.n.01"].wnid, len(h.classes(under="dog.n.01"))
('n02084071', 118)
>>> h[134].name, h.name(134), h.name(517)
('crane.n.05', 'crane (wading bird)', 'crane (lifting device)')
>>> h.lca("dog.n.01", "cat.n.01").name, int(h.class_matrix("lca_height")[134, 517])
('carnivore.n.01', 15)

Importing this package imports only numpy. Each table is read from disk on first use.
"""

from importlib import import_module
from typing import Any

from imgtool.wordnet.errors import ImgtoolError, InputError, UnknownSynsetError
from imgtool.wordnet.graph.label_map import LabelMap
from imgtool.wordnet.graph.synset import Synset
from imgtool.wordnet.hierarchy import Hierarchy, load
from imgtool.wordnet.imagenet.class_table import class_table
from imgtool.wordnet.tables import orders

__all__ = [
    "Hierarchy",
    "ImgtoolError",
    "InputError",
    "LabelMap",
    "Synset",
    "UnknownSynsetError",
    "class_table",
    "load",
    "orders",
]

# Modules imported on first use, which keeps the import time at a few milliseconds.
_LAZY_MODULES = {
    "evaluation": "metrics.evaluation",
    "metrics": "metrics",
    "splits": "tasks.splits",
    "subsets": "imagenet.subsets",
    "trees": "tasks.trees",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return import_module(f"imgtool.wordnet.{_LAZY_MODULES[name]}")
    raise AttributeError(f"module 'imgtool.wordnet' has no attribute {name!r}")
