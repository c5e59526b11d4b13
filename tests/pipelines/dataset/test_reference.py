"""docs/prepare.md names every column and key of what prepare writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imgtool.pipelines.dataset.manifest import CLASS_TABLE, MANIFEST
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.records import BOX_TYPE, Locator

PAGE = (Path(__file__).parents[3] / "docs/prepare.md").read_text(encoding="utf-8")
REFERENCE = PAGE.partition("## Manifest")[2]


def rows_after(text: str) -> list[list[str]]:
    """The cells of each row of the table that follows a text."""
    table = re.search(r"(?:^\|.*\n)+", REFERENCE[REFERENCE.index(text) :], re.M)
    assert table is not None
    return [line.strip("| ").split(" | ") for line in table[0].splitlines()[2:]]


def names_in(cells: list[str]) -> list[str]:
    return re.findall(r"`(\w+)`", " ".join(cells))


@pytest.mark.parametrize(
    ("text", "schema"),
    [("`train.parquet`, `val.parquet`", MANIFEST), ("`labels.parquet`, the class table", CLASS_TABLE)],
    ids=["manifest", "class table"],
)
def test_the_columns_of_the_tables(text, schema):
    stated = {name: cells[1] for cells in rows_after(text) for name in names_in(cells[:1])}
    assert stated.keys() == set(schema.names)
    for field in schema:
        kind = str(field.type)
        short = "list of struct" if "struct" in kind else "list of string" if kind.startswith("list") else kind
        assert stated[field.name] == short


def test_the_fields_of_a_box():
    (boxes,) = (cells for cells in rows_after("`train.parquet`") if names_in(cells[:1]) == ["boxes"])
    assert names_in(boxes[2:]) == [field.name for field in BOX_TYPE]


def keys_of(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict):
            for key, below in one.items():
                yield key
                yield from keys_of(below)


def test_the_keys_of_dataset_json(drawn_data):
    info = json.loads((drawn_data / "dataset.json").read_text())
    stated = {name for cells in rows_after("`dataset.json` is written last") for name in names_in(cells)}
    assert {*keys_of(info)} - {"train", "val"} == stated
    assert info["settings"].keys() == Settings().to_dict().keys()


def test_the_syntax_of_a_locator():
    example = re.search(r"`(ILSVRC2012_img_train\.tar!\S+)`", REFERENCE)
    assert example is not None
    place = Locator("ILSVRC2012_img_train.tar", "n01440764.tar/n01440764_10026.JPEG", 5632, 13697)
    assert example[1] == str(place)
    assert str(Locator("train/a/1.jpg", "", 0, 9)) == "train/a/1.jpg"
    assert str(Locator("0.parquet", "row 3", 4, 0, "parquet:0:3:image")) == "0.parquet!row 3"
