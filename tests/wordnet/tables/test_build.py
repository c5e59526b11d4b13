"""The tables in the package equal those that build makes from WordNet's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imgtool.wordnet.errors import InputError
from imgtool.wordnet.tables.build import build, class_bits, main, parse_noun
from imgtool.wordnet.tables.nouns import CLASS_SETS, DATA


def test_same_bytes(wordnet_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--wordnet", str(wordnet_folder), "--out", str(tmp_path)]) == 0
    assert "82,115 nouns" in capsys.readouterr().out
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    arrays = {path.name for path in DATA.glob("*.npy")} - {"class_sets.npy"}
    assert set(built) == arrays | {"glosses.txt", "noun.exc", "LICENSE.wordnet"}
    assert [name for name in built if built[name] != (DATA / name).read_bytes()] == []


def test_class_sets(wordnet_folder: Path, fact: Callable[[str], str], tmp_path: Path) -> None:
    lists = {"in22k": "imagenet22k", "in12k": "imagenet12k", "in21k": "imagenet21k_miil_w21"}
    options = []
    for name, file in lists.items():
        (tmp_path / name).write_text(fact(f"{file}_synsets.txt"))
        options += ["--classes", f"{name}={tmp_path / name}"]
    assert main(["--wordnet", str(wordnet_folder), "--out", str(tmp_path), *options]) == 0
    assert (tmp_path / "class_sets.npy").read_bytes() == (DATA / "class_sets.npy").read_bytes()


def test_wrong_class_lists(tmp_path: Path) -> None:
    offsets = np.array([1740, 2084071])
    files = dict.fromkeys(CLASS_SETS, tmp_path / "list")
    for text, message in {"n02084071\nn00000001": "only 1 of its 2 wnids", "dog": "list: cannot be read"}.items():
        (tmp_path / "list").write_text(text)
        with pytest.raises(InputError, match=message):
            class_bits(files, offsets)
    with pytest.raises(InputError, match="list: cannot be read"):
        class_bits(dict.fromkeys(CLASS_SETS, tmp_path / "none" / "list"), offsets)
    with pytest.raises(InputError, match="all of in22k, in12k, in21k"):
        class_bits({"in22k": tmp_path / "list"}, offsets)


def test_licence_is_shipped() -> None:
    text = (DATA / "LICENSE.wordnet").read_text()
    assert text.startswith("This software and database is being provided to you, the LICENSEE, by\nPrinceton")
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in text
    assert text.endswith("Princeton University and LICENSEE agrees to preserve same.\n")


def test_a_line_of_data_noun() -> None:
    pointers = "004 @i 09444100 n 0000 #p 09435739 n 0000 + 00001740 v 0101 @ 00001740 n 0000"
    noun = parse_noun(f'09450163 17 n 02 sun 0 Sun 1 {pointers} | a; "b|c"  ')
    assert noun == (9450163, 17, ["sun", "Sun"], [(9444100, True), (1740, False)], 'a; "b|c"')


def test_not_wordnet(tmp_path: Path, wordnet_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"data\.noun.*wordnet-base"):
        build(tmp_path, out)
    few = (wordnet_folder / "data.noun").read_text().splitlines(keepends=True)[:100]
    (tmp_path / "data.noun").write_text("".join(few))
    (tmp_path / "index.noun").write_text((wordnet_folder / "index.noun").read_text())
    with pytest.raises(InputError, match="WordNet"):
        build(tmp_path, out)
    (tmp_path / "data.noun").write_text("nonsense\n")
    with pytest.raises(InputError, match="cannot be parsed"):
        build(tmp_path, out)
    assert main(["--wordnet", str(tmp_path), "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not out.exists()
