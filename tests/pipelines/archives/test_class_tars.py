"""Tars of class tars: what is passed over in the outer and the inner tars."""

from __future__ import annotations

import io
import tarfile

from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.sources import open_source


def class_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in {"1.JPEG": b"one", "._1.JPEG": b"x", ".DS_Store": b"x"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, kind, target in (("2.JPEG", "1", "1.JPEG"), ("3.JPEG", "2", "1.JPEG"), ("4.JPEG", "2", "/gone")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind.encode(), target
            archive.addfile(info)
    return buffer.getvalue()


def test_the_same_rules_as_for_other_archives(tmp_path, tar_of):
    files = {"n00000001.tar": class_tar(), "._n00000001.tar": b"x", "n00000002.tar": b""}
    (tmp_path / "whole.tar").write_bytes(tar_of(files))
    (tmp_path / "folder").mkdir()
    for name, data in files.items():
        (tmp_path / "folder" / name).write_bytes(data)
    (tmp_path / "folder/README").write_bytes(b"x")
    for path in (tmp_path / "whole.tar", tmp_path / "folder"):
        source = open_source(path)
        assert (source.layout, source.wnids) == ("imagenet-21k", ["n00000001", "n00000002"])
        records = list(source.records("train"))
        assert [record.key for record in records] == ["1", "2", "3"]
        with LocatorReader(source.root) as reader:
            assert {reader.read(record.locator) for record in records} == {b"one"}
        counts = {"hidden": 3, "link out of the archive": 1}
        assert source.passed_over.counts == counts | ({"not a class tar": 1} if path.is_dir() else {})
        [line] = source.passed_over.notes()
        assert ": 3 hidden (" in line
