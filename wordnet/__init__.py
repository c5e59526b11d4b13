"""The synset hierarchy: a directed acyclic graph over WordNet 3.0's nouns, joined to class indices.

>>> from imgtool import wordnet
>>> h = wordnet.load()                   # ImageNet-1k; "full" for all 82,115 nouns; or a list of wnids
>>> h["dog.n.01"].wnid, len(h.classes(under="dog.n.01"))
('n02084071', 118)
>>> h[134].name, h.name(134), h.name(517)
('crane.n.05', 'crane (wading bird)', 'crane (lifting device)')

Importing this package brings numpy and nothing else; the tables are read when first asked.
"""

from imgtool.wordnet import orders
from imgtool.wordnet.errors import ImgtoolError, InputError, UnknownSynsetError
from imgtool.wordnet.hierarchy import Hierarchy, load
from imgtool.wordnet.labelmap import label_table
from imgtool.wordnet.synset import Synset

__all__ = [
    "Hierarchy",
    "ImgtoolError",
    "InputError",
    "Synset",
    "UnknownSynsetError",
    "label_table",
    "load",
    "orders",
]
