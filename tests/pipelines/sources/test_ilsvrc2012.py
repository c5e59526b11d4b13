"""ILSVRC2012's archives: which records they yield, whole, truncated and contradictory."""

from __future__ import annotations

import json
import shutil
import tarfile

import pyarrow.parquet as pq
import pytest

from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import open_loader
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

SMALL = Settings(max_side=64)


def bytes_of(source, record) -> bytes:
    with LocatorReader(source.root) as reader:
        return reader.read(record.locator)


def test_drawn_archives(drawn):
    source = open_source(drawn)
    assert source.layout == "ilsvrc2012"
    assert source.splits == ("train", "val")
    assert source.wnids == sorted(source.wnids)
    train, val = (list(source.records(split)) for split in source.splits)
    assert (len(train), len(val)) == (80, 20)
    for record in train:
        assert record.key.startswith(record.wnids[0] + "_")
        assert record.locator.member == f"{record.wnids[0]}.tar/{record.key}.JPEG"
    with tarfile.open(drawn / "ILSVRC2012_img_val.tar") as archive:
        for record in val[:3]:
            assert bytes_of(source, record) == archive.extractfile(record.locator.member).read()


def test_the_mini_archives_have_the_published_labels(mini, facts):
    """A class index is a position among the sorted wnids; the development kit's IDs are another order."""
    source = open_source(mini)
    assert source.wnids == (facts / "ilsvrc2012_wnids.txt").read_text().split()
    ids = json.loads((facts / "ilsvrc2012_id_by_wnid.json").read_text())
    assert source.ilsvrc2012_ids == ids
    train, val = (list(source.records(split)) for split in source.splits)
    assert (len(train), len(val)) == (500, 100)
    assert all(r.key.split("_")[0] == r.wnids[0] for r in train)
    with tarfile.open(mini / "ILSVRC2012_devkit_t12.tar.gz") as devkit:
        truth = devkit.extractfile("ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt").read().split()
    for record in val:
        assert ids[record.wnids[0]] == int(truth[int(record.key.rpartition("_")[2]) - 1])
    # The validation images are also training images, so their labels must agree.
    label_of = {bytes_of(source, r): r.wnids for r in train}
    agreed = [label_of[data] == r.wnids for r in val if (data := bytes_of(source, r)) in label_of]
    assert len(agreed) == 100
    assert all(agreed)


def test_without_a_devkit_the_published_classes_are_used(drawn, tmp_path):
    shutil.copy(drawn / "ILSVRC2012_img_train.tar", tmp_path)
    source = open_source(tmp_path)
    assert len(source.wnids) == 1000
    assert source.splits == ("train",)


def test_validation_without_a_devkit_is_refused(drawn, tmp_path):
    shutil.copy(drawn / "ILSVRC2012_img_val.tar", tmp_path)
    with pytest.raises(SourceError, match=r"ILSVRC2012_img_val\.tar: .*ILSVRC2012_devkit_t12"):
        open_source(tmp_path)


def test_a_truncated_train_tar_yields_its_complete_images(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "cut")
    whole = list(open_source(drawn).records("train"))
    path = tmp_path / "cut" / "ILSVRC2012_img_train.tar"
    cut = whole[50].locator.offset + 10
    with open(path, "r+b") as file:
        file.truncate(cut)
    found = []
    with pytest.raises(TruncatedSourceError, match="is truncated"):
        for record in open_source(tmp_path / "cut").records("train"):
            found.append(record)
    assert found == whole[:50]


def test_a_class_tar_outside_the_devkit_is_named(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "odd")
    with tarfile.open(tmp_path / "odd" / "ILSVRC2012_img_train.tar", "a") as archive:
        archive.addfile(tarfile.TarInfo("n99999999.tar"))
    with pytest.raises(SourceError, match=r"n99999999\.tar is not one of .* 10 classes"):
        list(open_source(tmp_path / "odd").records("train"))


def test_a_broken_devkit_is_named(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "odd")
    (tmp_path / "odd" / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"\x1f\x8b junk")
    with pytest.raises(SourceError, match="download it again"):
        open_source(tmp_path / "odd")


@pytest.mark.parametrize("name", ["ILSVRC2012_img_test_v10102019.tar", "ILSVRC2012_img_test.tar"])
def test_the_test_archive_has_no_labels(tar_of, members_of, archives, tmp_path, name):
    images = list(members_of(archives / "ILSVRC2012_img_val.tar").values())[:5]
    data = {f"test/ILSVRC2012_test_{n:08d}.JPEG": image for n, image in enumerate(images, 1)}
    (archives / name).write_bytes(tar_of(data))
    assert open_source(archives).splits == ("train", "val", "test")
    out = tmp_path / "out"
    prepare(archives, out, Settings(max_side=64, format="both"), workers=1)
    rows = pq.read_table(out / "test.parquet").to_pylist()
    assert {row["key"] for row in rows} == {f"ILSVRC2012_test_{n:08d}" for n in range(1, 6)}
    assert {(tuple(row["wnids"]), row["class_index"]) for row in rows} == {((), -1)}
    with open_loader(out, "test", batch_size=5, image_size=32) as loader:
        assert [labels.tolist() for _, labels in loader] == [[-1] * 5]
    assert sum(Dataset(out).class_table["val_count"].to_pylist()) == 20
    with pytest.raises(SourceError, match=f"--src {archives}"):
        open_source(archives / name)


def test_the_files_beside_the_archives_are_counted(archives):
    assert not open_source(archives).passed_over.counts
    (archives / "notes.txt").touch()
    (archives / ".hidden").touch()
    (archives / "extra/cat").mkdir(parents=True)
    (archives / "extra/cat/1.jpg").touch()
    assert open_source(archives).passed_over.counts == {"not a file of ILSVRC2012": 2, "hidden": 1}
