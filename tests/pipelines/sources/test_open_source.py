"""Paths that are not a source, or only a part of one, are refused with an error of one line."""

from __future__ import annotations

import pytest

from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import ImgtoolError, SourceError, TruncatedSourceError


def test_an_archive_instead_of_its_folder_is_refused(drawn):
    with pytest.raises(SourceError, match=f"--src {drawn}"):
        open_source(drawn / "ILSVRC2012_img_train.tar")


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_bytes(b"x" * 1024)])
def test_an_unknown_layout_is_reported_in_one_line(tmp_path, make):
    path = tmp_path / "x.tar"
    make(path)
    with pytest.raises(SourceError) as error:
        open_source(path)
    assert "x.tar" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("nothing://bucket/a.tar", "Protocol not known: nothing"),
        ("http://127.0.0.1:9/a.tar", "[Cc]onnect"),
    ],
)
def test_a_url_that_cannot_be_opened_names_the_cause(url, cause):
    with pytest.raises(ImgtoolError, match=f"{url}: .*{cause}"):
        open_source(url)


def test_a_missing_package_is_named(monkeypatch):
    import fsspec

    def missing(url):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ImgtoolError, match="gs://bucket/a: Please install gcsfs"):
        open_source("gs://bucket/a")


def test_a_tar_that_is_cut_in_its_first_member(tmp_path, tar_of):
    (tmp_path / "a.tar").write_bytes(tar_of({"train/ant/0.jpg": b"x" * 5000})[:2000])
    with pytest.raises(TruncatedSourceError, match=r"a\.tar is truncated: train/ant/0\.jpg has 5000 bytes"):
        open_source(tmp_path / "a.tar")


def test_an_archive_of_archives(tmp_path, tar_of):
    (tmp_path / "a.tar").write_bytes(tar_of({"x/cat.tar": tar_of({"1.jpg": b"x"}), "x/dog.tar": b""}))
    with pytest.raises(SourceError, match=r"a\.tar: .*cat\.tar\), which are not read .*unpack it first"):
        open_source(tmp_path / "a.tar")
