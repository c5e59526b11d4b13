"""Compressed archives: decompressed once, with the same shards as from the plain archive."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from imgtool.pipelines.prepare import Limits, prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.storage.hashes import file_xxh3
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

SMALL = Settings(max_side=64)


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): file_xxh3(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("ending, mode", [("tar.gz", "gz"), ("tgz", "gz"), ("tar.bz2", "bz2"), ("tar.xz", "xz")])
def test_a_compressed_archive_makes_the_same_shards(whole21k, tmp_path, ending, mode):

    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[mode]
    path = tmp_path / f"winter21_whole.{ending}"
    path.write_bytes(pack(whole21k.read_bytes()))
    with pytest.raises(SourceError, match="--spool"):
        open_source(path)
    prepare(whole21k, tmp_path / "plain", SMALL)
    prepare(path, tmp_path / "packed", SMALL, spool=tmp_path / "spool")
    assert list((tmp_path / "spool").rglob("*.tar")), "the user's own spool folder is kept"
    plain, packed = contents(tmp_path / "plain"), contents(tmp_path / "packed")
    assert plain.keys() == packed.keys()
    assert {k: v for k, v in plain.items() if "train/" in k} == {k: v for k, v in packed.items() if "train/" in k}
    prepare(path, tmp_path / "inside", SMALL)
    assert contents(tmp_path / "inside") == packed
    assert not (tmp_path / "inside/.source").exists()


def test_a_truncated_or_false_gzip(whole21k, tmp_path):
    path = tmp_path / "winter21_whole.tar.gz"
    packed = gzip.compress(whole21k.read_bytes())
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(TruncatedSourceError, match=r"winter21_whole\.tar.* is truncated"):
        prepare(path, tmp_path / "out", SMALL)
    assert 5 < prepare(path, tmp_path / "out", SMALL, limits=Limits(accept_truncated=True)).stored["train"] < 35
    path.write_bytes(b"not gzip at all")
    with pytest.raises(SourceError, match=r"winter21_whole\.tar\.gz: .*not a \.gz"):
        prepare(path, tmp_path / "other", SMALL)
