"""Compressed archives: decompressed once, with the same shards as from the plain archive."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from imgtool.pipelines.archives import compressed
from imgtool.pipelines.prepare import Limits, prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.storage.hashes import file_xxh3
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

SMALL = Settings(max_side=64)


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): file_xxh3(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def zstd(data: bytes) -> bytes:
    return pa.compress(data, "zstd", asbytes=True)


PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


@pytest.mark.parametrize(
    "ending, mode", [("tar.gz", "gz"), ("tgz", "gz"), ("tar.bz2", "bz2"), ("tar.xz", "xz"), ("tar.zst", "zst")]
)
def test_a_compressed_archive_makes_the_same_shards(whole21k, tmp_path, ending, mode):
    pack = PACK[mode]
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


@pytest.mark.parametrize("mode", PACK)
def test_a_truncated_or_false_archive(whole21k, tmp_path, mode):
    path = tmp_path / f"winter21_whole.tar.{mode}"
    packed = PACK[mode](whole21k.read_bytes())
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(TruncatedSourceError, match=r"winter21_whole\.tar.* is truncated"):
        prepare(path, tmp_path / "out", SMALL)
    assert 5 < prepare(path, tmp_path / "out", SMALL, limits=Limits(accept_truncated=True)).stored["train"] < 35
    path.write_bytes(b"not gzip at all")
    with pytest.raises(SourceError, match=rf"winter21_whole\.tar\.{mode}: .*not a \.{mode}"):
        prepare(path, tmp_path / "other", SMALL)
    middle = len(packed) // 2
    path.write_bytes(packed + b"junk" if mode == "zst" else packed[:middle] + bytes(99) + packed[middle + 99 :])
    with pytest.raises(SourceError, match=rf"winter21_whole\.tar\.{mode}: is damaged"):
        prepare(path, tmp_path / "other", SMALL)
    path.write_bytes(packed[:9])
    with pytest.raises(SourceError, match=rf"winter21_whole\.tar\.{mode} is truncated: not even"):
        prepare(path, tmp_path / "other", SMALL)
    assert not (tmp_path / "other").exists(), "nothing is left behind"


@pytest.mark.parametrize("name", ["a.tar", "a", "a.zip", "a.bin"])
@pytest.mark.parametrize("mode", PACK)
def test_archives_are_recognised_by_content(whole21k, tmp_path, name, mode):
    expected = open_source(whole21k)
    for data in (whole21k.read_bytes(), PACK[mode](whole21k.read_bytes())):
        (tmp_path / name).write_bytes(data)
        source = open_source(tmp_path / name, tmp_path / "spool")
        assert (source.layout, source.wnids) == (expected.layout, expected.wnids)


@pytest.mark.parametrize("name", ["a.ZIP", "a", "a.tgz", "a.tar"])
def test_zips_are_recognised_by_content(tmp_path, name):
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("train/ant/0.jpg", b"x")
        archive.writestr("train/bee/0.jpg", b"x")
    assert open_source(tmp_path / name).wnids == ["ant", "bee"]


def test_a_copy_of_no_use_is_removed(tmp_path, tar_of):
    """What is unpacked is of no known layout, or is packed once more."""
    path = tmp_path / "a.tar.gz"
    for data in (tar_of({"readme.txt": b"x"}), gzip.compress(b"x" * 99)):
        path.write_bytes(gzip.compress(data))
        with pytest.raises(SourceError, match=r"a\.tar"):
            prepare(path, tmp_path / "out", SMALL)
        assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


@pytest.mark.parametrize(("head", "kind"), [(b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07\0", "rar")])
def test_archives_that_cannot_be_read_are_named(tmp_path, head, kind):
    (tmp_path / "a.tar").write_bytes(head + bytes(999))
    with pytest.raises(SourceError, match=rf"a\.tar: is a {kind} archive"):
        open_source(tmp_path / "a.tar")


def test_several_frames(tmp_path, whole21k):
    data = whole21k.read_bytes()
    for mode, pack in PACK.items():
        (tmp_path / f"a.tar.{mode}").write_bytes(pack(data[:5000]) + pack(data[5000:]))
        with compressed.unpacked(tmp_path / f"a.tar.{mode}", tmp_path / "spool") as path:
            assert path.read_bytes() == data
