"""ImageNet-21k as a tar of class tars and as a folder of class tars."""

from __future__ import annotations

from pathlib import Path

from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.storage.hashes import file_xxh3

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
