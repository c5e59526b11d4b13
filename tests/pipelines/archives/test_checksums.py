"""MD5 sums of downloaded archives."""

from __future__ import annotations

import hashlib

import pytest
from click.testing import CliRunner

from imgtool.cli import main
from imgtool.pipelines.archives import checksums
from imgtool.wordnet.errors import SourceError


def test_an_altered_archive_is_reported(archives, monkeypatch, tmp_path):
    sums = {
        name: hashlib.md5((archives / name).read_bytes()).hexdigest()
        for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_devkit_t12.tar.gz")
    }
    monkeypatch.setattr(checksums, "PUBLISHED", sums)
    monkeypatch.setattr(checksums, "SIZES", {})
    seen: list[tuple[int, int]] = []
    assert checksums.check_md5(archives, lambda done, total: seen.append((done, total))) == list(sums)
    assert seen[-1][0] == seen[-1][1] == sum((archives / name).stat().st_size for name in sums)
    with open(archives / "ILSVRC2012_img_train.tar", "r+b") as file:
        file.write(b"x")
    with pytest.raises(SourceError, match=r"ILSVRC2012_img_train\.tar has MD5 sum \w+,"):
        checksums.check_md5(archives)
    with pytest.raises(SourceError, match=r"nothing: has no archive .*MD5"):
        checksums.check_md5(tmp_path / "nothing")


def test_check_md5_on_the_command_line(archives, tmp_path):
    """The drawn archives differ from the published ones in size, which is reported before anything is written."""
    arguments = ["prepare", "--src", str(archives), "--out", str(tmp_path / "out"), "--check-md5"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "ILSVRC2012_img_train.tar has" in result.output and "147,897,477,120" in result.output
    assert not (tmp_path / "out").exists()


def test_published_sums_are_those_in_the_facts(facts):
    readme = (facts / "README.md").read_text()
    assert all(md5 in readme for md5 in checksums.PUBLISHED.values())
