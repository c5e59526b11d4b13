"""SECURITY.md names files, limits and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text("utf-8")
NAMED = re.findall(r"`((?:pipelines|training|wordnet|tools|tests)/[\w/.]+\.\w+)(?:::(\w+))?`", TEXT)


def test_every_named_file_limit_and_test_exists() -> None:
    assert len(NAMED) > 50
    for path, name in NAMED:
        source = (ROOT / path).read_text("utf-8")
        assert not name or re.search(rf"^\s*(?:def |constexpr \w+ )?{name}\b", source, re.M), f"{path}::{name}"


def test_every_attack_has_a_test() -> None:
    attacks = [line for table in TEXT.split("| attack |")[1:] for line in table.split("\n\n")[0].splitlines()[2:]]
    assert len(attacks) > 20
    assert all("`tests/" in line for line in attacks)
