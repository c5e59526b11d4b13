"""The wordnet benchmark runs, asks both the same, and says what it measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from imgtool.bench import bench
from imgtool.bench import wordnet as module

WORDNET = Path("/usr/share/wordnet")

needs_both = pytest.mark.skipif(not (WORDNET / "data.noun").exists(), reason=f"no WordNet in {WORDNET}")


@needs_both
def test_run(tmp_path: Path) -> None:
    pytest.importorskip("nltk")
    file = tmp_path / "raw.json"
    options = ["wordnet", "--rounds", "1", "--sample", "30", "--json", str(file)]
    done = CliRunner().invoke(bench, options)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(module.ROWS)
    assert "* computed from the time for 30 pairs." in lines
    result = json.loads(file.read_text())
    assert set(result["rows"]) == set(module.ROWS) and result["rounds"] == len(result["raw"]["ours"]) == 1
    rows = result["rows"]
    assert all(row["ours"] > 0 and row["nltk"] > 0 for row in rows.values())
    for name in ("load", "memory", "lca", "wup", "lca_matrix"):
        assert rows[name]["ours"] < rows[name]["nltk"], name


@needs_both
def test_nltk_corpus_is_whole(tmp_path: Path) -> None:
    reader = pytest.importorskip("nltk.corpus.reader.wordnet").WordNetCorpusReader
    corpus = module.nltk_corpus(tmp_path)
    assert {path.name for path in corpus.iterdir()} == set(reader._FILES)
    assert len((corpus / "lexnames").read_text().splitlines()) == 45  # lexnames(5WN): 00 to 44


def test_differing_answers_stop_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def answer(who: str, question: dict[str, Any], folder: Path) -> dict[str, Any]:
        return {"measured": dict.fromkeys(module.ROWS, 1.0), "answers": {"lca": who, "path": 1}}

    monkeypatch.setattr(module, "ask_fresh", answer)
    monkeypatch.setattr(module, "fresh", lambda *args: "")
    monkeypatch.setattr(module, "nltk_corpus", lambda folder, wordnet: folder)
    done = CliRunner().invoke(bench, ["wordnet", "--rounds", "1"])
    assert done.exit_code == 1 and "the two answer differently: lca" in done.output


def test_no_wordnet(tmp_path: Path) -> None:
    done = CliRunner().invoke(bench, ["wordnet", "--wordnet", str(tmp_path)])
    assert done.exit_code == 1 and "wordnet-base" in done.output
