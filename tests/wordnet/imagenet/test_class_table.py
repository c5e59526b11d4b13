"""The columns of the class table."""

from __future__ import annotations

from itertools import pairwise

import pytest

from imgtool.wordnet import Hierarchy, InputError, class_table, orders

COLUMNS = ["class_index", "wnid", "synset", "lemmas", "name", "gloss", "ilsvrc2012_id", "hypernyms", "path"]


def test_in1k(h: Hierarchy) -> None:
    table = class_table(reversed(h.wnids))
    assert list(table) == COLUMNS and {len(column) for column in table.values()} == {1000}
    assert table["class_index"] == list(range(1000))
    assert table["wnid"] == h.wnids
    assert table["name"] == h.names
    assert table["ilsvrc2012_id"] == orders.ilsvrc2012_ids().tolist()
    for index in range(1000):
        synset = h[index]
        assert table["synset"][index] == synset.name
        assert table["lemmas"][index] == list(synset.lemmas)
        assert table["gloss"][index] == synset.gloss
        assert table["hypernyms"][index] == [parent.wnid for parent in synset.parents]
        path = [h[wnid] for wnid in table["path"][index]]
        assert path[0].name == "entity.n.01" and path[-1] == synset
        assert all(above in below.parents for above, below in pairwise(path))
        assert len(path) == 1 + synset.depth[1]


def test_every_value_is_plain_python(h: Hierarchy) -> None:
    plain = (int, str, type(None))
    for column in class_table([*h.wnids[:20], "mine"]).values():
        for value in column:
            assert all(type(item) in plain for item in (value if isinstance(value, list) else [value]))


def test_folders_that_are_not_in_wordnet() -> None:
    table = class_table(["tench", "n01440764", "n99999999", "Dog"])
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    assert [row["wnid"] for row in rows] == ["Dog", "n01440764", "n99999999", "tench"]
    assert [row["name"] for row in rows] == ["Dog", "tench (cyprinid)", "n99999999", "tench"]
    nothing: dict[str, object] = {
        "synset": None,
        "lemmas": [],
        "gloss": None,
        "ilsvrc2012_id": None,
        "hypernyms": [],
        "path": [],
    }
    assert rows[0] == {"class_index": 0, "wnid": "Dog", "name": "Dog", **nothing}
    assert rows[1]["ilsvrc2012_id"] == 449


def test_no_folder_is_in_wordnet() -> None:
    assert class_table(["no", "yes"])["name"] == ["no", "yes"]


def test_in_wordnet_but_not_in_ilsvrc2012() -> None:
    table = class_table(["n02084071", "n09450163"])  # dog; the Sun, an instance
    assert table["ilsvrc2012_id"] == [None, None]
    assert table["hypernyms"][1] == ["n09444100"]  # star
    assert table["path"][1][-2:] == ["n09444100", "n09450163"]


def test_wrong_lists() -> None:
    with pytest.raises(InputError, match="twice: a"):
        class_table(["a", "b", "a"])
    with pytest.raises(InputError, match="no classes"):
        class_table([])
