"""WordNet 3.0's nouns as the arrays in data/, which `python -m imgtool.wordnet.tables.build` writes.

A *row* is a synset's position among the 82,115 nouns sorted by offset, and hence by wnid. A *word* is a pair of a
synset and one of its lemmas; the words of row r are `lemma_indptr[r]:lemma_indptr[r + 1]`, in WordNet's order. Each
array is a .npy file that is read on first use, so that only the columns in use take time and memory.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DATA = Path(__file__).parents[1] / "data"

# The names of WordNet's lexicographer files 3 to 28, which are those of nouns: lexnames(5WN).
LEXNAMES = tuple(
    "noun." + topic
    for topic in (
        *("Tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event"),
        *("feeling", "food", "group", "location", "motive", "object", "person", "phenomenon", "plant"),
        *("possession", "process", "quantity", "relation", "shape", "state", "substance", "time"),
    )
)
FIRST_LEXNAME = 3

# Published sets of classes, each one bit of the column class_sets, the first the lowest. ImageNet-1k is in in1k.tsv.
CLASS_SETS = {
    "in22k": "the 21,841 wnids of ImageNet's full release of fall 2011, fall11_whole.tar",
    "in12k": "11,821 of them, those that timm's in12k checkpoints were trained on (timm: imagenet12k_synsets.txt)",
    "in21k": "ImageNet-21K-P's 10,450: winter 2021 as processed by Ridnik et al. 2021, arXiv:2104.10972",
}


def _array(name: str) -> cached_property[Array]:
    def read(self: Tables) -> Array:
        array: Array = np.load(self.folder / f"{name}.npy", allow_pickle=False)
        array.setflags(write=False)
        return array

    return cached_property(read)


def _numbers(name: str) -> cached_property[memoryview]:
    """The same array as a memoryview, from which single numbers are read faster."""

    def view(self: Tables) -> memoryview:
        return memoryview(getattr(self, name))

    return cached_property(view)


class Tables:
    """The columns, and look-ups that need only the columns. Use `tables()`, which caches one instance."""

    offset = _array("offset")  # int32 [82115], sorted: the digits of the wnid
    lexname = _array("lexname")  # uint8 [82115]: lexicographer file number
    parent_indptr = _array("parent_indptr")  # int32 [82116]
    parent = _array("parent")  # int32 [84427]: rows, `@` and `@i` pointers in WordNet's own order
    parent_is_instance = _array("parent_is_instance")  # bool [84427]: the pointer is `@i`
    lemma_indptr = _array("lemma_indptr")  # int32 [82116]: row → words
    text_indptr = _array("text_indptr")  # int32 [146348]: word → bytes
    text = _array("text")  # uint8: ASCII, underscores for spaces
    sense = _array("sense")  # uint8 [146347]: 1-based position in index.noun's list for the lemma
    class_sets = _array("class_sets")  # uint8 [82115]: bit i is set if the synset is in the i-th of CLASS_SETS
    by_lemma = _array("by_lemma")  # int32 [146347]: words sorted by (lower-cased lemma, sense)

    def __init__(self, folder: Path = DATA) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[], Tables], tuple[()]]:
        return tables, ()  # another process reads the files itself

    def __len__(self) -> int:
        return len(self.offset)

    def row(self, wnid: str) -> int | None:
        """Returns the row of a wnid such as "n02084071", or None if WordNet has no such noun."""
        if not is_wnid(wnid):
            return None
        offset = int(wnid[1:])
        row = bisect_left(self._offsets, offset)
        return row if row < len(self) and self._offsets[row] == offset else None

    def wnid(self, row: int) -> str:
        return f"n{self.offset[row]:08d}"

    def name(self, row: int) -> str:
        """Returns the NLTK name: the first lemma, lower-cased, and the number of the synset's sense of it."""
        word = self._lemma_indptr[row]
        return f"{self._lower(word).decode()}.n.{self.sense[word]:02d}"

    def lemmas(self, row: int) -> tuple[str, ...]:
        """Returns the lemmas with spaces, as in ImageNet's words.txt."""
        words = range(self._lemma_indptr[row], self._lemma_indptr[row + 1])
        at = self._text_indptr
        return tuple(self.text[at[word] : at[word + 1]].tobytes().decode().replace("_", " ") for word in words)

    def senses(self, lemma: str) -> list[int]:
        """Returns the rows with a lemma in WordNet's sense order; case, spaces and underscores do not matter."""
        key = lemma_key(lemma).encode()
        words = self._by_lemma
        first = bisect_left(words, key, key=self._lower)
        rows: list[int] = []
        for i in range(first, len(words)):
            if self._lower(words[i]) != key:
                break
            row = bisect_right(self._lemma_indptr, words[i]) - 1
            if row not in rows:  # a synset may have two spellings that differ in case only: "A", "a"
                rows.append(row)
        return rows

    def class_set(self, name: str) -> Array:
        """Returns int64, ascending: the rows of the classes in one of CLASS_SETS."""
        return np.flatnonzero(self.class_sets & (1 << list(CLASS_SETS).index(name)))

    def gloss(self, row: int) -> str:
        """Returns the whole gloss: the definition, then examples in quotes."""
        start = self._gloss_ends[row - 1] + 1 if row else 0
        return self._glosses[start : self._gloss_ends[row]].decode()

    @cached_property
    def exceptions(self) -> dict[str, tuple[str, ...]]:
        """WordNet's noun.exc: irregular plural → base forms, both with underscores."""
        lines = (self.folder / "noun.exc").read_text("ascii").splitlines()
        return {plural: tuple(bases) for plural, *bases in map(str.split, lines)}

    @cached_property
    def _glosses(self) -> bytes:
        return (self.folder / "glosses.txt").read_bytes()

    @cached_property
    def _gloss_ends(self) -> Array:
        return np.flatnonzero(np.frombuffer(self._glosses, np.uint8) == ord("\n"))

    _offsets = _numbers("offset")
    _lemma_indptr = _numbers("lemma_indptr")
    _text_indptr = _numbers("text_indptr")
    _by_lemma = _numbers("by_lemma")

    @cached_property
    def _lower_text(self) -> bytes:
        return self.text.tobytes().lower()

    def _lower(self, word: int) -> bytes:
        return self._lower_text[self._text_indptr[word] : self._text_indptr[word + 1]]


def lemma_key(word: str) -> str:
    """Normalises a word as lemmas are compared: lower-cased, with underscores for spaces."""
    return "_".join(word.lower().replace("_", " ").split())


@cache
def tables() -> Tables:
    """Returns the tables in the package."""
    return Tables()


def is_wnid(key: str) -> bool:
    """Tells whether a string has the form of a noun's wnid: n and eight digits."""
    return len(key) == 9 and key[0] == "n" and key[1:].isascii() and key[1:].isdigit()
