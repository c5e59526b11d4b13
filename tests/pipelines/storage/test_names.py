"""File names are read as UTF-8 in any locale."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

LOCALES = {
    "UTF-8": {"PYTHONUTF8": "1"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


def test_the_same_data_set_from_any_locale(
    draw_image: Callable[..., np.ndarray], encoded: Callable[..., bytes], tmp_path: Path
) -> None:
    for seed, name in enumerate(("train/café/é.jpg", "train/猫/1.jpg", "train/bee/日本.jpg")):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(encoded(draw_image(60, 50, seed)))
    made = {}
    for locale, switches in LOCALES.items():
        command = [sys.executable, "-m", "imgtool", "prepare", "--src", "source", "--out", locale, "--workers", "1"]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | switches, capture_output=True)
        assert done.returncode == 0, done.stderr
        files = (p for p in sorted((tmp_path / locale).rglob("*")) if p.suffix in (".beton", ".parquet"))
        made[locale] = {p.name: p.read_bytes() for p in files}
    assert made["UTF-8"] and made["ASCII"] == made["UTF-8"]


def test_a_name_that_is_not_utf8_is_named_and_found(tmp_path: Path) -> None:
    from imgtool.pipelines.storage.folders import LocalFolder

    try:
        (tmp_path / os.fsdecode(b"a\xff.jpg")).write_bytes(b"1234")
    except OSError:
        pytest.skip("this file system accepts only UTF-8 names")
    folder = LocalFolder(tmp_path)
    assert list(folder.walk()) == [("a\udcff.jpg", 4)]
    assert folder.size("a\udcff.jpg") == 4 and folder.read("a\udcff.jpg") == b"1234"
