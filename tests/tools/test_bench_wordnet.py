"""The wordnet benchmark runs, asks both the same questions, and reports its measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from imgtool.bench import bench
from imgtool.bench import wordnet as module

WORDNET = Path("/usr/share/wordnet")

needs_both = pytest.mark.skipif(not (WORDNET / "data.noun").exists(), reason=f"no WordNet in {WORDNET}")


@needs_both
def test_nltk_corpus_is_complete(tmp_path: Path) -> None:
    reader = pytest.importorskip("nltk.corpus.reader.wordnet").WordNetCorpusReader
    corpus = module.nltk_corpus(tmp_path)
    assert {path.name for path in corpus.iterdir()} == set(reader._FILES)
    assert len((corpus / "lexnames").read_text().splitlines()) == 45  # lexnames(5WN): 00 to 44


def test_different_answers_stop_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def answer(who: str, question: dict[str, Any], folder: Path) -> dict[str, Any]:
        return {"measured": dict.fromkeys(module.MEASUREMENTS, 1.0), "answers": {"lca": who, "path": 1}}

    monkeypatch.setattr(module, "ask_fresh", answer)
    monkeypatch.setattr(module, "fresh", lambda *args: "")
    monkeypatch.setattr(module, "nltk_corpus", lambda folder, wordnet: folder)
    done = CliRunner().invoke(bench, ["wordnet", "--rounds", "1"])
    assert done.exit_code == 1 and "answers of imgtool and NLTK differ: lca" in done.output


def test_missing_wordnet_is_an_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(bench, ["wordnet", "--wordnet", str(tmp_path)])
    assert done.exit_code == 1 and "wordnet-base" in done.output
