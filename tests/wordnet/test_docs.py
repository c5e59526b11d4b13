"""Runs the examples in the package's docstring. Those of docs/wordnet.md are tested with the other documents."""

from __future__ import annotations

import doctest

import imgtool.wordnet


def test_the_packages_docstring() -> None:
    results = doctest.testmod(imgtool.wordnet)
    assert results.attempted >= 4 and not results.failed
