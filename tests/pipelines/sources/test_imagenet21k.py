"""ImageNet-21k as a tar of class tars and as a folder of class tars."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.storage.hashes import file_xxh3
from imgtool.wordnet.errors import SourceError

SMALL = Settings(max_side=64)


def test_the_whole_tar_equals_a_folder_of_class_tars(members_of, whole21k, mini, tmp_path):
    source = open_source(whole21k)
    assert (source.layout, source.splits, len(source.wnids)) == ("imagenet-21k", ("train",), 41)
    records = list(source.records("train"))
    assert len(records) == 40
    assert all(record.key.startswith(record.wnids[0]) for record in records)
    same = {record.key: record for record in open_source(mini).records("train")}
    with LocatorReader(source.root) as ours, LocatorReader(str(mini)) as theirs:
        for record in records:
            assert ours.read(record.locator) == theirs.read(same[record.key].locator)
    folder = tmp_path / "tars"
    folder.mkdir()
    for name, data in members_of(whole21k).items():
        (folder / Path(name).name).write_bytes(data)
    prepare(folder, tmp_path / "a", SMALL)
    prepare(whole21k, tmp_path / "b", SMALL)
    for name in ("train/00000.beton", "labels.parquet"):
        assert file_xxh3(tmp_path / "a" / name) == file_xxh3(tmp_path / "b" / name)
    assert sorted(Dataset(tmp_path / "b").wnids)[0] == "n00007846"


def test_class_tars_beside_class_folders(make_folder, make_tar):
    path = make_folder({"train/cat/1.jpg": None, "train/dog/2.jpg": None})
    make_tar({"n01440764_1.JPEG": None}, "source/n01440764")
    with pytest.raises(SourceError, match=r"class tars \(n01440764\.tar\) and folders of images .*unpack the tars"):
        open_source(path)


def test_class_tars_that_have_been_unpacked(make_folder, make_tar):
    path = make_folder({"train/n01440764/1.jpg": None, "train/n01443537/2.jpg": None})
    make_tar({"1.JPEG": None}, "source/train/n01440764")
    source = open_source(path)
    assert (source.layout, len(list(source.records("train")))) == ("class-folders", 2)
    assert source.passed_over.counts == {"archive that is not unpacked": 1}


def test_the_files_beside_the_class_tars_are_counted(make_folder, make_tar):
    path = make_folder({"notes.txt": "x", "logo.png": None, "n01443537.tar.gz": "x"})
    make_tar({"n01440764_1.JPEG": None, ".hidden": "x"}, "source/n01440764")
    source = open_source(path)
    assert len(list(source.records("train"))) == 1
    assert source.passed_over.counts == {"not a class tar": 2, "archive that is not unpacked": 1, "hidden": 1}
