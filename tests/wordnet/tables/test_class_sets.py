"""load: published class sets, prepared data sets, and arguments that are neither."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imgtool import wordnet
from imgtool.wordnet import InputError, UnknownSynsetError
from imgtool.wordnet.errors import DatasetError

Fact = Callable[[str], str]

FILES = {
    "in1k": ("ilsvrc2012_wnids.txt", 1000),
    "in22k": ("imagenet22k_synsets.txt", 21_841),
    "in12k": ("imagenet12k_synsets.txt", 11_821),
    "in21k": ("imagenet21k_miil_w21_synsets.txt", 10_450),
}


@pytest.mark.parametrize("name", FILES)
def test_published(name: str, fact: Fact) -> None:
    file, count = FILES[name]
    h = wordnet.load(name)
    assert h.wnids == fact(file).split() and h.num_classes == count
    assert wordnet.load(name) is h
    assert len(h["entity.n.01"].classes) == count and [s.name for s in h if s.depth == (0, 0)] == ["entity.n.01"]


def test_a_class_may_be_below_another() -> None:
    h = wordnet.load("in22k")
    dog = h["dog.n.01"]
    assert dog.class_index is not None and dog.class_index in dog.classes and len(dog.classes) > 118
    assert dog.height > 0
    assert (h.class_of_node[h.leaves] >= 0).all() and len(h.leaves) < h.num_classes


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[[list[str]], Path]:
    """The folder of a data set, with only what load reads."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")

    def make(wnids: list[str]) -> Path:
        pq.write_table(pa.table({"class_index": np.arange(len(wnids)), "wnid": wnids}), tmp_path / "labels.parquet")
        return tmp_path

    return make


def test_prepared(prepared: Callable[[list[str]], Path]) -> None:
    path = prepared(["n01440764", "n02084071"])
    for given in (path, str(path)):
        h = wordnet.load(given)
        assert h.wnids == ["n01440764", "n02084071"] and h.classes(under="dog.n.01").tolist() == [1]


def test_prepared_but_not_in_wordnet(prepared: Callable[[list[str]], Path]) -> None:
    path = prepared(["cats", "n02084071"])
    with pytest.raises(UnknownSynsetError, match=r"1 of 2 classes are not nouns of WordNet 3\.0: cats") as caught:
        wordnet.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_unreadable_class_tables(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "labels.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"labels\.parquet: cannot be read"):
        wordnet.load(tmp_path)
    pq.write_table(pa.table({"name": ["cat"]}), tmp_path / "labels.parquet")
    with pytest.raises(DatasetError, match=r"labels\.parquet: cannot be read"):
        wordnet.load(tmp_path)


def test_neither_name_nor_path(tmp_path: Path) -> None:
    for wrong in ("imagenet", tmp_path, str(tmp_path / "no")):
        with pytest.raises(InputError, match="'in1k', 'in22k', 'in12k', 'in21k', 'full'"):
            wordnet.load(wrong)
