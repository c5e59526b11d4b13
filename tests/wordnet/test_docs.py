"""The examples of docs/wordnet.md and of the package's docstrings are true."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

import imgtool.wordnet

TOUR = Path(__file__).parents[2] / "docs" / "wordnet.md"


def test_the_tour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks are one session, in a folder of its own, for they write files."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    text = TOUR.read_text("utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert len(blocks) >= 20
    # Everything else becomes empty lines, so that failures are told by the file's own line numbers.
    session = "".join(
        "\n" * (text.count("\n", 0, block.start(1)) - text.count("\n", 0, before)) + block[1]
        for before, block in zip([0, *(b.end(1) for b in blocks)], blocks, strict=False)
    )
    assert session.count(">>> ") == text.count(">>> ")
    test = doctest.DocTestParser().get_doctest(session, {}, TOUR.name, str(TOUR), 0)
    problems: list[str] = []
    with np.printoptions(formatter=None, linewidth=75):  # ultralytics, once imported, sets its own
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=problems.append)
    assert not problems, "\n".join(problems)


def test_the_packages_docstring() -> None:
    results = doctest.testmod(imgtool.wordnet)
    assert results.attempted >= 4 and not results.failed
