"""Paths that are not a source, or only a part of one, are refused with an error of one line."""

from __future__ import annotations

import pytest

from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import SourceError


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
