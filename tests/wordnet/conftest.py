"""Fixtures of the tests of the hierarchy: hierarchies of the class sets, published facts, and NLTK's reader."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imgtool import wordnet
from imgtool.wordnet.tables.nouns import FIRST_LEXNAME, LEXNAMES

FACTS = Path(__file__).parents[2].parent / "shared" / "facts"
WORDNET = Path("/usr/share/wordnet")


@pytest.fixture(scope="session")
def h() -> wordnet.Hierarchy:
    return wordnet.load()


@pytest.fixture(scope="session")
def full() -> wordnet.Hierarchy:
    return wordnet.load("full")


@pytest.fixture(scope="session")
def fact() -> Callable[[str], str]:
    """Returns the text of a file of published facts."""

    def read(name: str) -> str:
        if not (FACTS / name).exists():
            pytest.skip(f"no {FACTS / name}")
        return (FACTS / name).read_text()

    return read


@pytest.fixture(scope="session")
def wordnet_folder() -> Path:
    """The folder of WordNet 3.0's files."""
    if not (WORDNET / "data.noun").exists():
        pytest.skip(f"no WordNet in {WORDNET} (Debian: wordnet-base)")
    return WORDNET


@pytest.fixture(scope="session")
def nltk_wordnet(wordnet_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """NLTK's reader of WordNet 3.0's nouns.

    It gets a separate folder, because Debian's folder lacks lexnames, and NLTK opens only files within its data path.
    The other parts of speech are empty, because the tests do not use them and they take seconds to read.
    """
    reader = pytest.importorskip("nltk.corpus.reader.wordnet")
    data = pytest.importorskip("nltk.data")
    root = tmp_path_factory.mktemp("nltk_data")
    folder = root / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    for name in reader.WordNetCorpusReader._FILES:
        (folder / name).touch()
    for name in ("data.noun", "index.noun", "noun.exc"):
        shutil.copyfile(wordnet_folder / name, folder / name)
    before = [f"other.{number}" for number in range(FIRST_LEXNAME)]  # adj.all, adj.pert, adv.all
    lexnames = "".join(f"{number:02d}\t{name}\t1\n" for number, name in enumerate([*before, *LEXNAMES]))
    (folder / "lexnames").write_text(lexnames)
    # NLTK recognises WordNet's version by the licence at the start of data.adj.
    licence = [line for line in (wordnet_folder / "data.noun").read_text().splitlines() if line.startswith("  ")]
    (folder / "data.adj").write_text("".join(line + "\n" for line in licence))
    data.path.insert(0, str(root))
    with pytest.warns(UserWarning, match="multilingual"):
        yield reader.WordNetCorpusReader(data.find("corpora/wordnet"), None)
    data.path.remove(str(root))
